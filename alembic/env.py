"""Runs the migrations: plain SQL, one transaction each, under a lock, so that two processes cannot race."""

from sqlalchemy import create_engine, text

from alembic import context

LOCK = 0x10715
"""Key of the advisory lock: any constant that no other advisory lock uses."""


def run() -> None:
    """Upgrade the database whose URL is `sqlalchemy.url`."""
    engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            connection.commit()
            context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            connection.commit()
    finally:  # a failed migration would leave its connection open
        engine.dispose()


run()
