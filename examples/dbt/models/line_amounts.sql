{{ config(
    materialized='coco_flow',
    meta={
        'source': 'order_lines',
        'key': ['customer', 'line_id'],
        'lookups': {
            'products': 'select l.id from shop.products p join shop.order_lines l on l.product = p.id',
        },
    },
) }}

-- The key begins with the customer, so that customer_totals finds the lines of a customer.
with lines as (
    select * from {{ source('shop', 'order_lines') }}
),

products as (
    select * from {{ source('shop', 'products') }}
)

select
    lines.customer,
    lines.id as line_id,
    lines.pieces * products.price as amount
from lines
join products on products.id = lines.product
