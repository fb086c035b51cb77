"""The flow of bench/peers.sh as CocoIndex has it: documents of a table, cut into chunks, into a table.

cocoindex_flow.py HOST TARGET each|whole: one update; prints its milliseconds and the process's peak memory
in kB. each: a memoized component for each document, as CocoIndex's own examples are. whole: one component
for all documents. What it knows of before is kept under COCOINDEX_DB.
"""

import resource
import sys
import time
from dataclasses import dataclass
from typing import AsyncIterator

import asyncpg
import cocoindex as coco
from cocoindex.connectors import postgres

host, target_name, mode = sys.argv[1:]
POOL = coco.ContextKey[asyncpg.Pool]("pool")


@dataclass
class Document:
    id: int
    body: str


@dataclass
class Chunk:
    doc_id: int
    n: int
    chunk: str


@coco.lifespan
async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        host=host, user="postgres", database="postgres"
    ) as pool:
        builder.provide(POOL, pool)
        yield


def declare(document: Document, table: postgres.TableTarget[Chunk]) -> None:
    for n in range(4):
        chunk = document.body[250 * n : 250 * (n + 1)]
        table.declare_row(row=Chunk(doc_id=document.id, n=n, chunk=chunk))


@coco.fn(memo=True)
async def process(document: Document, table: postgres.TableTarget[Chunk]) -> None:
    declare(document, table)


@coco.fn
async def main() -> None:
    table = await postgres.mount_table_target(
        POOL,
        table_name=target_name,
        table_schema=await postgres.TableSchema.from_class(
            Chunk, primary_key=["doc_id", "n"]
        ),
    )
    rows = postgres.PgTableSource(
        coco.use_context(POOL), table_name="documents", row_type=Document
    ).fetch_rows()
    if mode == "each":
        await coco.mount_each(process, rows.items(lambda d: d.id), table)
    else:
        async for document in rows:
            declare(document, table)


app = coco.App(coco.AppConfig(name=f"bench_{mode}"), main)
began = time.monotonic()
app.update_blocking()
elapsed = time.monotonic() - began
print(int(1000 * elapsed), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
