"""Runs migrations online, and keeps --autogenerate away from the tables of coco."""

from alembic import context
from sqlalchemy import create_engine, text

from models import Base

# libpq reads PGHOST, PGDATABASE and the others from the environment.
engine = create_engine("postgresql+psycopg2://")

COCO_SCHEMAS = {"coco", "coco_internal"}


def managed_targets(connection):
    """Returns schema and name of each table that coco created for a flow."""
    if connection.scalar(text("select to_regclass('coco.targets')")) is None:
        return set()
    rows = connection.execute(
        text(
            """select n.nspname, c.relname
                 from coco.targets t
                 join pg_class c on c.oid = t.relation
                 join pg_namespace n on n.oid = c.relnamespace
                where t.managed"""
        )
    )
    return {(schema, name) for schema, name in rows}


with engine.connect() as connection:
    targets = managed_targets(connection)
    default_schema = connection.dialect.default_schema_name
    connection.rollback()

    def include_name(name, type_, parent_names):
        return type_ != "schema" or name not in COCO_SCHEMAS

    def include_object(object, name, type_, reflected, compare_to):
        """Leaves out the targets; their indexes are left out with them."""
        if type_ == "table":
            return ((object.schema or default_schema), name) not in targets
        return True

    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=include_name,
        include_object=include_object,
    )
    with context.begin_transaction():
        context.run_migrations()
