"""Run by Alembic, on the connection that `versions.py` hands it, in that connection's transaction."""

from alembic import context

from agent_rl.store import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
with context.begin_transaction():
    context.run_migrations()
