"""One item of a flow in a notebook: its rows, its notices and its plan, without writing anything."""

# %% Connect; the notices of a query's functions are printed.
import psycopg
from psycopg.types.json import Jsonb

connection = psycopg.connect(autocommit=True)
connection.add_notice_handler(lambda notice: print(f"{notice.severity}: {notice.message_primary}"))


def evaluate(flow, key, **arguments):
    """Returns the rows that coco.evaluate returns for an item."""
    named = "".join(f", {name} => %s" for name in arguments)
    values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in arguments.values()]
    query = f"SELECT target, output, plan FROM coco.evaluate(%s, %s{named})"
    return connection.execute(query, [flow, Jsonb(key), *values]).fetchall()


# %% A flow: documents, cut into chunks.
connection.execute("""
    CREATE TABLE IF NOT EXISTS docs (id int PRIMARY KEY, body text NOT NULL);
    INSERT INTO docs VALUES (1, 'The moon pulls the sea. The sea follows.') ON CONFLICT DO NOTHING;
    SELECT coco.create_flow('chunks', 'docs',
      'SELECT d.id, c.n, c.chunk FROM docs d, coco.split_text(d.body, 24) AS c',
      'chunks', '{id,n}', if_not_exists => true);
""")

# %% What does document 1 give now?
for target, output, _ in evaluate("chunks", {"id": 1}):
    print(target, output["n"], output["chunk"])

# %% And a text that is in no table?
for _, output, _ in evaluate("chunks", {"id": 99}, item={"body": "Stones do not follow."}):
    print("new", output["n"], output["chunk"])

# %% Where does the time go?
for _, _, plan in evaluate("chunks", {"id": 1}, explain=True):
    print(plan)
