"""Orders, and what a flow makes of them."""

from django.db import connection, models


class Order(models.Model):
    customer = models.CharField(max_length=100, db_index=True)
    amount = models.DecimalField(max_digits=12, decimal_places=2)


class CustomerTotal(models.Model):
    """The target of the flow customer_totals. coco creates and alters the table, so Django does not."""

    customer = models.CharField(max_length=100, primary_key=True)
    total = models.DecimalField(max_digits=12, decimal_places=2)
    orders = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = "shop_customertotal"

    @staticmethod
    def bring_up_to_date():
        """Updates the flow in the current transaction. A live flow does not need it."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT evaluated FROM coco.update('customer_totals')")
            return cursor.fetchone()[0]
