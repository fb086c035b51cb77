//! Every kind of code that an ordinary role can put behind a value, a relation or a query, and every place at which coco
//! meets it. The product of both is tried in `crossing.rs`.
//!
//! Not here: what only a superuser can make (operator classes, event triggers, base types, text search templates,
//! procedural languages), and what runs no code of its maker (collations, text search configurations, enums as such).

/// A type with code behind it.
pub struct TypeKind {
    pub name: &'static str,
    /// Its name as SQL.
    pub sql: &'static str,
    /// A value of it, `@` being a number.
    pub value: &'static str,
    /// Whether each place must accept it.
    pub accepted: bool,
}

pub const TYPES: [TypeKind; 10] = [
    TypeKind { name: "domain", sql: "mal.dom", value: "(@)::mal.dom", accepted: true },
    TypeKind {
        name: "text_domain",
        sql: "mal.tdom",
        value: "('t' || @)::mal.tdom",
        accepted: true,
    },
    TypeKind { name: "domain_of_domain", sql: "mal.dom2", value: "(@)::mal.dom2", accepted: true },
    TypeKind {
        name: "enum_with_casts",
        sql: "mal.mood",
        value: "(array['a','b','c','d','e','f','g','h','i']::mal.mood[])[@]",
        accepted: false,
    },
    TypeKind {
        name: "array_of_enum",
        sql: "mal.mood[]",
        value: "array[(array['a','b','c','d','e','f','g','h','i']::mal.mood[])[@]]",
        accepted: false,
    },
    TypeKind {
        name: "array_of_domain",
        sql: "mal.dom[]",
        value: "array[@]::mal.dom[]",
        accepted: false,
    },
    TypeKind {
        name: "domain_of_array",
        sql: "mal.darr",
        value: "array[@]::mal.darr",
        accepted: false,
    },
    TypeKind { name: "composite", sql: "mal.pair", value: "row(@, @)::mal.pair", accepted: false },
    TypeKind {
        name: "domain_of_composite",
        sql: "mal.dpair",
        value: "row(@, @)::mal.pair::mal.dpair",
        accepted: false,
    },
    TypeKind { name: "range", sql: "mal.rng", value: "mal.rng(@, @ + 10)", accepted: false },
];

/// Makes the types. Each piece of code calls `mal.note`, which tells the server's log who runs it and how.
pub const MAKE_TYPES: &str = "
  create function mal.noted(what text) returns boolean language plpgsql volatile as $$ begin perform mal.note(what); return true; end $$;
  create domain mal.dom as int check (mal.noted('domain'));
  create domain mal.dom2 as mal.dom check (mal.noted('domain of a domain'));
  create domain mal.tdom as text check (mal.noted('domain'));
  create domain mal.darr as int[] check (mal.noted('domain of an array'));
  create type mal.pair as (d mal.dom, x int);
  create domain mal.dpair as mal.pair check (mal.noted('domain of a composite'));
  create function mal.difference(mal.dom, mal.dom) returns float8 language plpgsql immutable as $$ begin perform mal.note('subtype_diff'); return $1 - $2; end $$;
  create type mal.rng as range (subtype = mal.dom, subtype_diff = mal.difference);
  create type mal.mood as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i');
  create function mal.mood_json(mal.mood) returns json language plpgsql immutable as $$ begin perform mal.note('cast to json'); return '1'; end $$;
  create function mal.mood_text(mal.mood) returns text language plpgsql immutable as $$ begin perform mal.note('cast to text'); return 'x'; end $$;
  create function mal.mood_int(mal.mood) returns int language plpgsql immutable as $$ begin perform mal.note('cast to int'); return 1; end $$;
  create cast (mal.mood as json) with function mal.mood_json(mal.mood);
  create cast (mal.mood as text) with function mal.mood_text(mal.mood) as implicit;
  create cast (mal.mood as int) with function mal.mood_int(mal.mood) as assignment;
  create function mal.moods_text(mal.mood[]) returns text language plpgsql immutable as $$ begin perform mal.note('cast of an array to text'); return 'x'; end $$;
  create function mal.moods_json(mal.mood[]) returns json language plpgsql immutable as $$ begin perform mal.note('cast of an array to json'); return '1'; end $$;
  create cast (mal.mood[] as text) with function mal.moods_text(mal.mood[]) as assignment;
  create cast (mal.mood[] as json) with function mal.moods_json(mal.mood[]);
  create function mal.pair_json(mal.pair) returns json language plpgsql immutable as $$ begin perform mal.note('cast of a composite'); return '1'; end $$;
  create function mal.pair_text(mal.pair) returns text language plpgsql immutable as $$ begin perform mal.note('cast of a composite'); return 'x'; end $$;
  create cast (mal.pair as json) with function mal.pair_json(mal.pair);
  create cast (mal.pair as text) with function mal.pair_text(mal.pair) as assignment;
  create function mal.rng_json(mal.rng) returns json language plpgsql immutable as $$ begin perform mal.note('cast of a range'); return '1'; end $$;
  create cast (mal.rng as json) with function mal.rng_json(mal.rng);
  create function mal.compared(mal.mood, mal.mood) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator'); return true; end $$;
  create operator mal.= (leftarg = mal.mood, rightarg = mal.mood, function = mal.compared);
  create operator mal.<> (leftarg = mal.mood, rightarg = mal.mood, function = mal.compared);
  create function mal.compared(mal.pair, mal.pair) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator'); return true; end $$;
  create operator mal.= (leftarg = mal.pair, rightarg = mal.pair, function = mal.compared);
  create function mal.compared(mal.dom, mal.dom) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator'); return $1::int operator(pg_catalog.=) $2::int; end $$;
  create operator mal.= (leftarg = mal.dom, rightarg = mal.dom, function = mal.compared);
";

/// A place at which a value of a type comes. `@` is the flow's name, `$T` the type, `$V(n)` a value of it.
pub struct Place {
    pub name: &'static str,
    pub setup: &'static str,
    pub declare: &'static str,
    /// The target and the column of its key, where it is in the database.
    pub key: &'static str,
    pub changes: &'static str,
}

const ROWS: &str = "create table @_s (id int primary key, k $T not null, v int not null);
  insert into @_s values (1, $V(1), 1), (2, $V(2), 2), (3, $V(3), 3)";

const CHANGES: &str = "update @_s set k = $V(4), v = 4 where id = 1; update @_s set v = v + 1; update @_s set id = 9 where id = 2;
  delete from @_s where id = 3; insert into @_s values (5, $V(5), 5)";

pub const PLACES: [Place; 14] = [
    Place {
        name: "source_key",
        setup: "create table @_s (k $T primary key, v int); insert into @_s values ($V(1), 1), ($V(2), 2), ($V(3), 3)",
        declare: "select coco.create_flow('@', 'mal.@_s', 'select k, v from @_s', 'mal.@_t', '{k}')",
        key: "k",
        changes: "update @_s set k = $V(4) where v = 1; update @_s set v = v + 1; delete from @_s where v = 4; insert into @_s values ($V(5), 5)",
    },
    Place {
        name: "scanned_key",
        setup: "create table @_s (k $T primary key, v int); insert into @_s values ($V(1), 1), ($V(2), 2), ($V(3), 3)",
        declare: "select coco.create_flow('@', 'mal.@_s', 'select v, v * 2 as w from @_s', 'mal.@_t', '{v}', capture => 'scan')",
        key: "v",
        changes: "update @_s set k = $V(4) where v = 1; delete from @_s where v = 3; insert into @_s values ($V(5), 5)",
    },
    Place {
        name: "group_key",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select k, count(*) as n, sum(v) as v from @_s group by k', 'mal.@_t', '{k}', source_key => '{k}')",
        key: "k",
        changes: CHANGES,
    },
    Place {
        // A log that has rows already gets one more column.
        name: "added_key",
        setup: "create table @_s (id int primary key, k $T not null, v int not null); insert into @_s values (1, $V(1), 1), (2, $V(2), 2), (3, $V(3), 3);
                select coco.create_flow('@_first', 'mal.@_s', 'select id, v from @_s', 'mal.@_f', '{id}'); update @_s set v = v + 1; select * from coco.update('@_first'); update @_s set v = v + 1",
        declare: "select coco.create_flow('@', 'mal.@_s', 'select k, sum(v) as v from @_s group by k', 'mal.@_t', '{k}', source_key => '{k}')",
        key: "k",
        changes: CHANGES,
    },
    Place {
        name: "used_column",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, k is null as n from @_s', 'mal.@_t', '{id}')",
        key: "id",
        changes: CHANGES,
    },
    Place {
        name: "used_in_group",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select v, count(k) as n from @_s group by v', 'mal.@_t', '{v}', source_key => '{v}')",
        key: "v",
        changes: CHANGES,
    },
    Place {
        name: "ordinal",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, v from @_s', 'mal.@_t', '{id}', ordinal => 'v::bigint + (k is null)::int')",
        key: "id",
        changes: CHANGES,
    },
    Place {
        name: "fingerprint",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, v from @_s', 'mal.@_t', '{id}', fingerprint => 'k')",
        key: "id",
        changes: CHANGES,
    },
    Place {
        name: "target_column",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, k from @_s', 'mal.@_t', '{id}')",
        key: "id",
        changes: CHANGES,
    },
    Place {
        name: "target_key",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select k, id as who from @_s', 'mal.@_t', '{k}')",
        key: "k",
        changes: CHANGES,
    },
    Place {
        name: "lookup_key",
        setup: "create table @_s (id int primary key, k $T not null, v int not null); insert into @_s values (1, $V(1), 1), (2, $V(2), 2), (3, $V(3), 3);
                create table @_l (k $T primary key, r int); insert into @_l values ($V(1), 1), ($V(2), 2)",
        declare: "select coco.create_flow('@'); select coco.add_source('@', 'mal.@_s');
                  select coco.add_lookup('@', 'mal.@_l', affects => 'select s.id from @_s s join @_l l on l.k operator(pg_catalog.=) s.k');
                  select coco.add_target('@', 'mal.@_t', 'select s.id, l.r from @_s s left join @_l l on l.k operator(pg_catalog.=) s.k', '{id}')",
        key: "id",
        changes: "update @_l set r = r + 1; update @_l set k = $V(3) where r = 2; delete from @_l where r = 3; insert into @_l values ($V(6), 1); update @_s set v = v + 1",
    },
    Place {
        name: "memo_input",
        setup: "create table @_s (id int primary key, k $T not null, v int not null); insert into @_s values (1, $V(1), 1), (2, $V(2), 2), (3, $V(3), 3);
                create function @_f(x $T) returns int language sql immutable as 'select 1'; select coco.memoize('mal.@_f($T)')",
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, @_f(k) as f from @_s', 'mal.@_t', '{id}')",
        key: "id",
        changes: CHANGES,
    },
    Place {
        name: "memo_result",
        setup: "create table @_s (id int primary key, k int not null, v int not null); insert into @_s values (1, 1, 1), (2, 2, 2), (3, 3, 3);
                create function @_f(x int) returns $T language plpgsql immutable as $q$ begin return $V(x); end $q$; select coco.memoize('mal.@_f(int)')",
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, @_f(k) is null as f from @_s', 'mal.@_t', '{id}')",
        key: "id",
        changes: "update @_s set k = 4 where id = 1; delete from @_s where id = 3; insert into @_s values (5, 1, 5)",
    },
    Place {
        name: "outbox",
        setup: ROWS,
        declare: "select coco.create_flow('@', 'mal.@_s', 'select id, k from @_s', '@', '{id}', server => 'hook')",
        key: "",
        changes: CHANGES,
    },
];

/// Code behind a relation or an expression, with the flow that meets it. `@` is the flow's name.
pub struct CodeKind {
    pub name: &'static str,
    pub setup: &'static str,
    pub declare: &'static str,
    pub changes: &'static str,
}

const PLAIN: &str =
    "select coco.create_flow('@', 'mal.@_s', 'select id, v from @_s', 'mal.@_t', '{id}')";
const PLAIN_CHANGES: &str = "update @_s set v = v + 1; delete from @_s where id = 3; insert into @_s values (5, 5); update @_s set id = 9 where id = 2";

/// Makes what `CODE` uses.
pub const MAKE_CODE: &str = "
  create function mal.nint(i int) returns int language plpgsql volatile as $$ begin perform mal.note('function'); return i; end $$;
  create function mal.iint(i int) returns int language plpgsql immutable as $$ begin perform mal.note('immutable function'); return i; end $$;
  create function mal.nbool(i int) returns boolean language plpgsql volatile as $$ begin perform mal.note('function'); return true; end $$;
  create function mal.step(a int, b int) returns int language plpgsql immutable as $$ begin perform mal.note('aggregate'); return coalesce(a, 0) + coalesce(b, 0); end $$;
  create aggregate mal.total(int) (sfunc = mal.step, stype = int);
  create aggregate mal.max(int) (sfunc = mal.step, stype = int);
  create aggregate mal.count(int) (sfunc = mal.step, stype = int);
  create function mal.fired() returns trigger language plpgsql as $$ begin perform mal.note('trigger'); return coalesce(new, old); end $$;
  create function mal.opeq(int, int) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator on the path'); return pg_catalog.int4eq($1, $2); end $$;
  create function mal.opeq(text, text) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator on the path'); return pg_catalog.texteq($1, $2); end $$;
  create function mal.opeq(bigint, bigint) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator on the path'); return pg_catalog.int8eq($1, $2); end $$;
  create function mal.tripled(int, int) returns boolean language plpgsql immutable as $$ begin perform mal.note('operator'); return true; end $$;
  create operator mal.=== (leftarg = int, rightarg = int, function = mal.tripled);
  create function mal.jsonb_build_object(variadic text[]) returns jsonb language plpgsql as $$ begin perform mal.note('function on the path'); return '{}'; end $$;
  create function mal.now() returns timestamptz language plpgsql as $$ begin perform mal.note('function on the path'); return pg_catalog.now(); end $$;
  create function mal.format(text, text) returns text language plpgsql as $$ begin perform mal.note('function on the path'); return $1; end $$;
  create function mal.count() returns bigint language plpgsql as $$ begin perform mal.note('function on the path'); return 1; end $$;
";

const fn code(name: &'static str, setup: &'static str, declare: &'static str) -> CodeKind {
    CodeKind { name, setup, declare, changes: PLAIN_CHANGES }
}

pub const CODE: [CodeKind; 34] = [
    code("function_in_query", "", "select coco.create_flow('@', 'mal.@_s', 'select id, nint(v) as v from @_s', 'mal.@_t', '{id}')"),
    code("function_in_from", "", "select coco.create_flow('@', 'mal.@_s', 'select id, f as v from @_s, nint(v) f', 'mal.@_t', '{id}')"),
    code("function_in_group", "", "select coco.create_flow('@', 'mal.@_s', 'select v, sum(nint(id)) as n from @_s group by v', 'mal.@_t', '{v}', source_key => '{v}')"),
    code("function_in_ordinal", "", "select coco.create_flow('@', 'mal.@_s', 'select id, v from @_s', 'mal.@_t', '{id}', ordinal => 'nint(v)::bigint')"),
    code("function_in_fingerprint", "", "select coco.create_flow('@', 'mal.@_s', 'select id, v from @_s', 'mal.@_t', '{id}', fingerprint => 'nint(v)')"),
    code(
        "function_in_affects",
        "create table @_l (id int primary key, r int); insert into @_l values (1, 1)",
        "select coco.create_flow('@'); select coco.add_source('@', 'mal.@_s'); select coco.add_lookup('@', 'mal.@_l', affects => 'select nint(id) as id from @_l');
         select coco.add_target('@', 'mal.@_t', 'select s.id, r as v from @_s s left join @_l l using (id)', '{id}')",
    ),
    code("constant_folded", "", "select coco.create_flow('@', 'mal.@_s', 'select id, v + iint(1) as v from @_s where iint(2) = 2', 'mal.@_t', '{id}')"),
    code("operator", "", "select coco.create_flow('@', 'mal.@_s', 'select id, v === 1 as v from @_s where id === 1', 'mal.@_t', '{id}')"),
    code(
        "operator_on_the_path",
        "create operator mal.= (leftarg = int, rightarg = int, function = mal.opeq); create operator mal.= (leftarg = text, rightarg = text, function = mal.opeq); create operator mal.= (leftarg = bigint, rightarg = bigint, function = mal.opeq)",
        PLAIN,
    ),
    code("aggregate", "", "select coco.create_flow('@', 'mal.@_s', 'select v, total(id) as n from @_s group by v', 'mal.@_t', '{v}', source_key => '{v}')"),
    code("window", "", "select coco.create_flow('@', 'mal.@_s', 'select id, total(v) over (partition by id) as v from @_s', 'mal.@_t', '{id}')"),
    code("view_in_query", "create view @_v as select id, nint(v) as v from @_s", "select coco.create_flow('@', 'mal.@_s', 'select s.id, w.v from @_s s left join @_v w using (id)', 'mal.@_t', '{id}')"),
    code("view_as_source", "create view @_v as select id, nint(v) as v from @_s", "select coco.create_flow('@', 'mal.@_v', 'select id, v from @_v', 'mal.@_t', '{id}', source_key => '{id}', capture => 'scan')"),
    code("default_of_source", "alter table @_s add column d int default nint(7)", PLAIN),
    code("generated_in_source", "alter table @_s add column d int generated always as (iint(v)) stored", "select coco.create_flow('@', 'mal.@_s', 'select id, d as v from @_s', 'mal.@_t', '{id}')"),
    code("index_on_source", "create index on @_s (iint(v)); create index on @_s (id) where iint(v) > 0", PLAIN),
    code("check_on_source", "alter table @_s add check (nbool(v))", PLAIN),
    code("trigger_on_source", "create trigger a before insert or update or delete on @_s for each row execute function fired(); create trigger z after insert or update or delete on @_s for each statement execute function fired()", PLAIN),
    code("policy_on_source", "alter table @_s enable row level security, force row level security; create policy p on @_s using (nbool(v))", PLAIN),
    code(
        "partitions_by_function",
        "create table @_p (id int, v int) partition by range (iint(id)); create table @_p1 partition of @_p for values from (0) to (1000); insert into @_p values (1, 1), (2, 2)",
        "select coco.create_flow('@', 'mal.@_p', 'select id, sum(v) as v from @_p group by id', 'mal.@_t', '{id}', source_key => '{id}')",
    ),
    code("default_in_target", "create table @_t (id int primary key, v int, d int default nint(7))", PLAIN),
    code("generated_in_target", "create table @_t (id int primary key, v int, d int generated always as (iint(v)) stored)", PLAIN),
    code("index_on_target", "create table @_t (id int primary key, v int); create index on @_t (iint(v)); create unique index on @_t (id) where iint(v) > 0", PLAIN),
    code("check_on_target", "create table @_t (id int primary key, v int check (nbool(v)))", PLAIN),
    code(
        "trigger_on_target",
        "create table @_t (id int primary key, v int); create trigger a before insert or update or delete on @_t for each row execute function fired();
         create trigger z after insert or update or delete on @_t for each statement execute function fired(); create constraint trigger c after insert or update or delete on @_t deferrable initially deferred for each row execute function fired()",
        PLAIN,
    ),
    code("rule_on_target", "create table @_t (id int primary key, v int); create rule r as on insert to @_t do also select nint(new.v); create rule u as on update to @_t do also select nint(new.v)", PLAIN),
    code("policy_on_target", "create table @_t (id int primary key, v int); alter table @_t enable row level security, force row level security; create policy p on @_t using (nbool(v)) with check (nbool(v))", PLAIN),
    code("partitioned_target", "create table @_t (id int, v int) partition by range (iint(id)); create table @_t1 partition of @_t for values from (-1000) to (1000)", PLAIN),
    code("referenced_target", "create table @_t (id int primary key, v int); create table @_r (id int references @_t on delete cascade on update cascade, n int default nint(1)); create trigger a before delete on @_r for each row execute function fired()", PLAIN),
    code("domain_in_target", "create domain @_d as int check (mal.noted('domain of a target')); create table @_t (id int primary key, v @_d)", "select coco.create_flow('@', 'mal.@_s', 'select id, v::@_d as v from @_s', 'mal.@_t', '{id}')"),
    code("memoized", "create function @_f(int) returns int language plpgsql immutable as $q$ begin perform mal.note('memoized'); return $1; end $q$; select coco.memoize('mal.@_f(int)')", "select coco.create_flow('@', 'mal.@_s', 'select id, @_f(v) as v from @_s', 'mal.@_t', '{id}')"),
    code(
        "memoized_in_batches",
        "create function @_f(int) returns int language sql immutable as 'select $1'; create function @_b(int[]) returns int[] language plpgsql immutable as $q$ begin perform mal.note('batch'); return $1; end $q$; select coco.memoize('mal.@_f(int)', batch => 'mal.@_b(int[])')",
        "select coco.create_flow('@', 'mal.@_s', 'select id, @_f(v) as v from @_s', 'mal.@_t', '{id}')",
    ),
    code("security_invoker_view", "create view @_v with (security_invoker) as select id, nint(v) as v from @_s", "select coco.create_flow('@', 'mal.@_s', 'select s.id, w.v from @_s s join @_v w using (id)', 'mal.@_t', '{id}')"),
    code("sql_function_inlined", "create function @_f(i int) returns int language sql stable as 'select nint($1)'", "select coco.create_flow('@', 'mal.@_s', 'select id, @_f(v) as v from @_s', 'mal.@_t', '{id}')"),
];
