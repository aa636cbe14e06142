"""Everything about models: records, metrics, engines, adapters, training. Knows no reviewer, no screen and no database."""
