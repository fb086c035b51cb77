"""Count the orders of a customer, too."""

from alembic import op

revision = "0003"
down_revision = "0002"

# Written out in both directions: a migration does not depend on later versions of the code.
TOTALS = "SELECT customer, sum(amount) AS total FROM orders GROUP BY customer"
TOTALS_AND_COUNTS = "SELECT customer, sum(amount) AS total, count(*) AS orders FROM orders GROUP BY customer"


def set_query(query):
    op.execute(f"SELECT coco.set_query('customer_totals', NULL, $$ {query} $$)")
    op.execute("SELECT * FROM coco.update('customer_totals')")


def upgrade():
    set_query(TOTALS_AND_COUNTS)


def downgrade():
    set_query(TOTALS)
