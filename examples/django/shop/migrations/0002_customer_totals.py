from django.db import migrations, models

# Names as Django writes them; the source may also be written without quotes.
DECLARE = """
    SELECT coco.create_flow('customer_totals', 'shop_order', source_key => '{customer}',
      query  => $$ SELECT "shop_order"."customer", SUM("shop_order"."amount") AS "total",
                          COUNT("shop_order"."id") AS "orders"
                     FROM "shop_order" GROUP BY "shop_order"."customer" $$,
      target => 'shop_customertotal', key => '{customer}')
"""


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_orders")]
    operations = [
        migrations.RunSQL(
            sql=[DECLARE, "SELECT * FROM coco.update('customer_totals')"],
            reverse_sql="SELECT coco.drop_flow('customer_totals', keep_targets => false)",
            # Django knows the model, and creates no table for it.
            state_operations=[
                migrations.CreateModel(
                    name="CustomerTotal",
                    fields=[
                        ("customer", models.CharField(max_length=100, primary_key=True, serialize=False)),
                        ("total", models.DecimalField(decimal_places=2, max_digits=12)),
                        ("orders", models.BigIntegerField()),
                    ],
                    options={"db_table": "shop_customertotal", "managed": False},
                ),
            ],
        ),
    ]
