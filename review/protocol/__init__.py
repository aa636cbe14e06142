"""The pure rules of blind review. Standard library, numpy and scipy only: no model, no database, no screen."""
