{{ config(materialized='coco_flow', meta={'source_key': ['customer'], 'key': ['customer']}) }}

select
    customer,
    count(*) as lines,
    sum(amount) as total
from {{ ref('line_amounts') }}
group by customer
