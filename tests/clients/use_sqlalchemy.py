"""SQLAlchemy 2: an ORM writes the source in a session that updates the flow; its inspector reads the target."""

from sqlalchemy import ForeignKey, create_engine, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "alchemy_person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Sale(Base):
    __tablename__ = "alchemy_sale"
    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[int] = mapped_column(ForeignKey("alchemy_person.id"))
    amount: Mapped[int]


engine = create_engine("postgresql+psycopg://")
Base.metadata.create_all(engine)
update = text("select sum(evaluated)::int, sum(upserted)::int from coco.update(:flow)")
with Session(engine) as session:
    session.execute(
        text("select coco.create_flow(:flow, source => cast('alchemy_sale' as regclass), query => :query, target => :target, key => :key)"),
        {
            "flow": "alchemy",
            "query": "select s.id, p.name, s.amount from alchemy_sale s join alchemy_person p on p.id = s.person",
            "target": "alchemy_target",
            "key": ["id"],
        },
    )
    # The query that a person's change affects.
    session.execute(
        text("select coco.add_lookup(:flow, cast('alchemy_person' as regclass), affects => :affects)"),
        {"flow": "alchemy", "affects": "select s.id from alchemy_sale s join alchemy_person p on p.id = s.person"},
    )
    session.add_all([Person(id=1, name="Ada"), Person(id=2, name="Bob")])
    session.flush()
    session.add_all([Sale(id=n, person=1 + n % 2, amount=n) for n in range(1, 5)])
    session.flush()
    assert session.execute(update, {"flow": "alchemy"}).one() == (4, 4)
    session.commit()

with Session(engine) as session:
    session.get(Person, 1).name = "Ada L."
    session.flush()
    assert session.execute(update, {"flow": "alchemy"}).one() == (2, 2)
    session.rollback()

with Session(engine) as session:
    names = session.scalars(text("select distinct name from alchemy_target order by name")).all()
    assert names == ["Ada", "Bob"], names
    found = inspect(session.connection())
    assert found.get_pk_constraint("alchemy_target")["constrained_columns"] == ["id"]
    columns = {column["name"]: str(column["type"]) for column in found.get_columns("alchemy_target")}
    assert columns == {"id": "INTEGER", "name": "VARCHAR", "amount": "INTEGER"}, columns
    assert "status" in found.get_view_names(schema="coco")
    session.execute(text("select coco.drop_flow(:flow, keep_targets => false)"), {"flow": "alchemy"})
    session.commit()
