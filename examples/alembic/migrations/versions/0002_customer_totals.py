"""Keep the totals of the customers up to date."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute(
        """
        SELECT coco.create_flow('customer_totals', 'orders', source_key => '{customer}',
          query  => $$ SELECT customer, sum(amount) AS total FROM orders GROUP BY customer $$,
          target => 'customer_totals', key => '{customer}')
        """
    )
    op.execute("SELECT * FROM coco.update('customer_totals')")


def downgrade():
    op.execute("SELECT coco.drop_flow('customer_totals', keep_targets => false)")
