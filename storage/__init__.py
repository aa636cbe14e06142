"""The database: tables, sessions, queries, migrations. Knows nothing of models or screens."""
