"""Django's tests with coco installed: a test's changes are followed, and rolled back with it."""

from decimal import Decimal

from django.db import connection
from django.db.models import F
from django.test import TestCase, TransactionTestCase

from shop.models import CustomerTotal, Order


class InOneTransaction(TestCase):
    @classmethod
    def setUpTestData(cls):
        Order.objects.create(customer="Ada", amount=10)
        Order.objects.create(customer="Bob", amount=5)

    def test_totals_follow_the_orders(self):
        self.assertEqual(CustomerTotal.bring_up_to_date(), 2)
        Order.objects.create(customer="Ada", amount=Decimal("2.50"))
        self.assertEqual(CustomerTotal.bring_up_to_date(), 1)
        ada = CustomerTotal.objects.get(customer="Ada")
        self.assertEqual((ada.total, ada.orders), (Decimal("12.50"), 2))

    def test_another_test_is_not_visible(self):
        self.assertEqual(CustomerTotal.objects.count(), 0)
        CustomerTotal.bring_up_to_date()
        self.assertEqual(CustomerTotal.objects.count(), 2)
        Order.objects.filter(customer="Bob").delete()
        CustomerTotal.bring_up_to_date()
        self.assertEqual(list(CustomerTotal.objects.values_list("customer", flat=True)), ["Ada"])


class Committed(TransactionTestCase):
    """Django empties the tables of its models after each of these tests, by TRUNCATE."""

    def test_totals_follow_committed_orders(self):
        CustomerTotal.bring_up_to_date()
        self.assertEqual(CustomerTotal.objects.count(), 0)
        Order.objects.create(customer="Eve", amount=1)
        CustomerTotal.bring_up_to_date()
        self.assertEqual(CustomerTotal.objects.get().customer, "Eve")

    def test_the_orders_of_another_test_are_gone(self):
        self.test_totals_follow_committed_orders()


class QueriesOfTheOrm(TestCase):
    def test_a_query_set_is_the_query_of_a_flow(self):
        Order.objects.create(customer="Ada", amount=1)
        large = Order.objects.create(customer="Ada", amount=9)
        doubles = Order.objects.filter(amount__gte=5).annotate(twice=F("amount") * 2).values("id", "twice")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coco.create_flow('doubles', 'shop_order', %s, 'shop_doubles', '{id}')", [str(doubles.query)]
            )
            cursor.execute("SELECT upserted FROM coco.update('doubles')")
            cursor.execute("SELECT id, twice FROM shop_doubles")
            self.assertEqual(cursor.fetchall(), [(large.id, Decimal("18.00"))])


class Introspection(TestCase):
    def test_the_target_equals_the_query(self):
        Order.objects.create(customer="Ada", amount=1)
        CustomerTotal.bring_up_to_date()
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM coco.verify('customer_totals')")
            self.assertEqual(cursor.fetchone(), (0,))
