-- How many rows of each kind and state there are, kept in the transaction that changes them: a scrape reads a handful of rows, however
-- many leases there are. The index that was there for counting goes.
--
-- One row for each kind and state would have every commit wait for the one before it. So each of them has 64 places, and a transaction
-- takes one that no other uses at the moment: their sum is the count. A place may be below zero, and the sum never is.
drop index {p}lease_count";

create table {p}lease_count" (
    place integer not null,
    kind  text    not null,
    state text    not null,
    rows  bigint  not null,
    primary key (place, kind, state)
    -- Room for the next version of a row on the same page, so that the index stays as it is.
) with (fillfactor = 50);

-- Writers of the version before this one may be at work. Those that have begun to change a lease end first; those that are about to
-- wait, and count then, but for one that has entered its function already, which the comparison of counts with rows makes good.
lock table {p}lease" in share row exclusive mode;
insert into {p}lease_count" (place, kind, state, rows) select 0, kind, state, count(*) from {p}lease" group by kind, state;

-- What is being revoked, in the order of ids: few rows, which are looked for among all leases at each start and when they are listed.
create index {i}lease_revoking" on {p}lease" (id) where state = 'revoking';

-- Adds to the counts. Waits for another transaction only when all places are taken.
create function {p}counted"(p_kinds text[], p_states text[], p_by bigint[]) returns void language plpgsql volatile as $f$
declare
    v_place integer := pg_backend_pid() % 64;
    v_tables integer := hashtext('{n}lease_count"');
begin
    for i in 1 .. 64 loop
        exit when pg_try_advisory_xact_lock(v_tables, v_place);
        v_place := (v_place + 1) % 64;
        if i = 64 then
            perform pg_advisory_xact_lock(v_tables, v_place);
        end if;
    end loop;
    insert into {p}lease_count" as t (place, kind, state, rows)
        select v_place, d.kind, d.state, sum(d.by) from unnest(p_kinds, p_states, p_by) as d(kind, state, by)
            group by d.kind, d.state having sum(d.by) <> 0
        on conflict (place, kind, state) do update set rows = t.rows + excluded.rows;
end $f$;

-- What a comparison of the counts with the rows has found.
create function {p}correct_counts"(p_term text, p_lock bigint, p_kinds text[], p_states text[], p_by bigint[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    perform {p}counted"(p_kinds, p_states, p_by);
end $f$;

-- As before, and counts.
create or replace function {p}commit"(
    p_term text, p_lock bigint, p_keys bigint[], p_exclusive boolean[], p_versioned boolean, p_cached boolean, p_tombstones integer,
    p_op smallint[], p_key bytea[], p_value bytea[], p_expect bigint[], p_numbered boolean[],
    p_kind text[], p_state text[], p_from text[], p_next bigint[], p_expires bigint[], p_fence bigint[], p_holder bytea[],
    p_until bigint[], p_token bytea[], p_mount bytea[], p_connection bytea[]
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    c record;
    v_number bigint;
    v_version bigint;
    v_mine bigint;
    v_found bigint;
    v_fits boolean;
    v_horizon bigint;
    v_kind text;
    v_state text;
    v_kinds text[] := '{}';
    v_states text[] := '{}';
    v_by bigint[] := '{}';
begin
    perform {p}guard"(p_term, p_lock);
    for i in 1 .. coalesce(array_length(p_keys, 1), 0) loop
        if p_exclusive[i] then
            perform pg_advisory_xact_lock(p_keys[i]);
        else
            perform pg_advisory_xact_lock_shared(p_keys[i]);
        end if;
    end loop;
    if p_versioned then
        v_version := nextval('{n}version"'::regclass);
    end if;
    if p_cached then
        update {p}counter" set value = value + 1 returning value into v_number;
    end if;
    for c in
        select * from unnest(p_op, p_key, p_value, p_expect, p_numbered, p_kind, p_state, p_from, p_next, p_expires, p_fence,
                             p_holder, p_until, p_token, p_mount, p_connection)
            with ordinality as t(op, k, v, expect, numbered, kind, state, was, next_at, expires_at, fence, holder, held_until,
                                 token, mount, connection, place)
    loop
        if c.op <= 2 and c.expect <> -1 then
            select version into v_found from {p}kv" where key = c.k;
            v_fits := case c.expect when -2 then v_found is null when -3 then v_found is not null
                                    else v_found is not null and v_found = c.expect end;
            if not v_fits then
                raise exception using errcode = 'LH001', message = 'a condition of a batch does not hold', detail = c.place::text;
            end if;
        end if;
        if c.op = 0 then
            v_mine := case when c.numbered then v_number else v_version end;
            insert into {p}kv" as kv (key, value, version) values (c.k, c.v, v_mine)
                on conflict (key) do update set value = excluded.value, version = excluded.version;
            if c.numbered then
                delete from {p}tombstone" where key = c.k;
            end if;
        elsif c.op = 1 then
            delete from {p}kv" where key = c.k;
            if c.numbered then
                insert into {p}tombstone" as t (key, version) values (c.k, v_number)
                    on conflict (key) do update set version = excluded.version;
            end if;
        elsif c.op = 3 then
            insert into {p}lease" values (c.k, c.kind, c.state, c.next_at, c.expires_at, c.fence, c.holder, c.held_until, c.token,
                                         c.mount, c.connection, c.v)
                on conflict (id) do nothing;
            if not found then
                raise exception using errcode = 'LH001', message = 'a lease row is there already', detail = c.place::text;
            end if;
            v_kinds := v_kinds || c.kind;
            v_states := v_states || c.state;
            v_by := v_by || 1::bigint;
        elsif c.op = 4 then
            v_kind := c.kind;
            update {p}lease" as l set state = c.state, next_at = c.next_at, expires_at = c.expires_at, fence = c.fence,
                holder = c.holder, held_until = c.held_until, token = c.token, mount = c.mount, connection = c.connection,
                body = case length(c.v) when 0 then l.body else c.v end
                where l.id = c.k and l.state = c.was and l.fence = c.expect and l.kind = c.kind;
            if not found then
                -- Either it is not held any more, or its kind changes as well, which nothing does so far.
                select l.kind into v_kind from {p}lease" l where l.id = c.k and l.state = c.was and l.fence = c.expect for update;
                if not found then
                    raise exception using errcode = 'LH002', message = 'a lease row is no longer held', detail = c.place::text;
                end if;
                update {p}lease" as l set kind = c.kind, state = c.state, next_at = c.next_at, expires_at = c.expires_at,
                    fence = c.fence, holder = c.holder, held_until = c.held_until, token = c.token, mount = c.mount,
                    connection = c.connection, body = case length(c.v) when 0 then l.body else c.v end
                    where l.id = c.k;
            end if;
            if v_kind <> c.kind or c.state <> c.was then
                v_kinds := v_kinds || v_kind || c.kind;
                v_states := v_states || c.was || c.state;
                v_by := v_by || array[-1, 1]::bigint[];
            end if;
        elsif c.op = 5 then
            delete from {p}lease" where id = c.k and fence = c.expect returning kind, state into v_kind, v_state;
            if not found then
                raise exception using errcode = 'LH002', message = 'a lease row is no longer held', detail = c.place::text;
            end if;
            v_kinds := v_kinds || v_kind;
            v_states := v_states || v_state;
            v_by := v_by || (-1)::bigint;
        end if;
    end loop;
    if p_cached and 1 = any (p_op) then
        select version into v_horizon from {p}tombstone" order by version desc limit 1 offset p_tombstones;
        if found then
            delete from {p}tombstone" where version <= v_horizon;
            update {p}counter" set horizon = v_horizon;
        end if;
    end if;
    -- Last, so that who has a place among the counts waits for nothing but the disk.
    if cardinality(v_by) > 0 then
        perform {p}counted"(v_kinds, v_states, v_by);
    end if;
end $f$;
