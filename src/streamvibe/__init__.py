"""Background jobs for multi-tenant apps, inside the PostgreSQL you already run."""
