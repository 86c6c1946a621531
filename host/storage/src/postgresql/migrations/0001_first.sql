-- `{p}` stands for the quoted schema, a dot, and the beginning of a quoted name: {p}kv" becomes "public"."leasehold_kv".
-- Keys, ids and names are bytes: text cannot hold a NUL, and bytes are compared as bytes whatever the database's collation is.
-- Moments are nanoseconds since the epoch.

create table {p}kv" (
    key     bytea  not null primary key,
    value   bytea  not null,
    version bigint not null
);

-- What has changed under the cached prefix, `sys/` (bytes 7379732f to 73797330).
create index {i}kv_changed" on {p}kv" (version) where key >= '\x7379732f'::bytea and key < '\x73797330'::bytea;

create table {p}lease" (
    id         bytea    not null primary key,
    kind       text     not null,
    state      text     not null,
    next_at    bigint   not null,
    expires_at bigint   not null,
    fence      bigint   not null,
    holder     bytea,
    held_until bigint,
    token      bytea    not null,
    mount      bytea    not null,
    connection bytea    not null,
    body       bytea    not null
);

create index {i}lease_due"   on {p}lease" (next_at, id);
create index {i}lease_token" on {p}lease" (token, id);
create index {i}lease_mount" on {p}lease" (mount, id);
create index {i}lease_count" on {p}lease" (kind, state);

-- Versions of values outside the cached prefix.
create sequence {p}version";

-- One row: the number of the last change under the cached prefix, and up to which number deletions may have been forgotten.
-- The row is locked by each transaction that takes a number, so that numbers become visible in their order.
create table {p}counter" (
    one     boolean not null primary key default true check (one),
    value   bigint  not null,
    horizon bigint  not null
);
insert into {p}counter" (value, horizon) values (0, 0);

create table {p}tombstone" (
    key     bytea  not null primary key,
    version bigint not null
);
create index {i}tombstone_version" on {p}tombstone" (version);

-- One row: the server that may write. `term` changes whenever the claim changes hands or is taken up again.
create table {p}server" (
    one     boolean not null primary key default true check (one),
    term    text    not null,
    name    text    not null,
    beat_at bigint  not null
);
insert into {p}server" (term, name, beat_at) values ('', '', 0);

create function {p}now"() returns bigint language sql volatile set search_path = pg_catalog, pg_temp as $f$
    select (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000
$f$;

-- First in each transaction that writes: what it reads after a lock must be what the one before it has committed.
create function {p}fresh"() returns void language plpgsql volatile as $f$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'transactions of this user must be read committed: see default_transaction_isolation';
    end if;
end $f$;

-- Then: nobody else becomes the writer while it runs, and what it writes waits for the disk.
create function {p}guard"(p_term text, p_lock bigint) returns void language plpgsql volatile as $f$
begin
    perform {p}fresh"();
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    perform pg_advisory_xact_lock_shared(p_lock);
    if not exists (select from {p}server" where term = p_term) then
        raise exception using errcode = 'LH003', message = 'another server has taken over this storage';
    end if;
end $f$;

-- Takes, keeps or takes up again the claim to write. Answers who has it, and since when nothing was heard of them. Only who comes
-- anew, without a term (an empty `p_mine`), may take a claim that was given back or has become stale: what a server that had one
-- before remembers is old by then.
create function {p}hold"(p_mine text, p_next text, p_name text, p_lock bigint, p_stale bigint,
                         out o_term text, out o_name text, out o_silent bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    v_now bigint;
begin
    perform {p}fresh"();
    if p_mine is distinct from p_next then
        perform pg_advisory_xact_lock(p_lock);
    end if;
    select s.term, s.name, s.beat_at into o_term, o_name, o_silent from {p}server" s for update;
    v_now := {p}now"();
    o_silent := v_now - o_silent;
    if (p_mine = '' and (o_term = '' or o_silent >= p_stale)) or (p_mine <> '' and o_term in (p_mine, p_next)) then
        update {p}server" set term = p_next, name = p_name, beat_at = v_now;
        o_term := p_next;
        o_name := p_name;
        o_silent := 0;
    end if;
end $f$;

create function {p}release"(p_mine text) returns void language sql volatile set search_path = pg_catalog, pg_temp as $f$
    update {p}server" set term = '', beat_at = 0 where term = p_mine
$f$;

-- A batch. Kinds: 0 put, 1 delete, 2 check, 3 insert, 4 move, 5 remove. Expectations: -1 anything, -2 absent, -3 present, else
-- the version; of a lease row, the fence. An error names the place of the change that did not fit: LH001 a conflict, LH002 a fence.
create function {p}commit"(
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
        elsif c.op = 4 then
            update {p}lease" as l set kind = c.kind, state = c.state, next_at = c.next_at, expires_at = c.expires_at,
                fence = c.fence, holder = c.holder, held_until = c.held_until, token = c.token, mount = c.mount,
                connection = c.connection, body = case length(c.v) when 0 then l.body else c.v end
                where l.id = c.k and l.state = c.was and l.fence = c.expect;
            if not found then
                raise exception using errcode = 'LH002', message = 'a lease row is no longer held', detail = c.place::text;
            end if;
        elsif c.op = 5 then
            delete from {p}lease" where id = c.k and fence = c.expect;
            if not found then
                raise exception using errcode = 'LH002', message = 'a lease row is no longer held', detail = c.place::text;
            end if;
        end if;
    end loop;
    if p_cached and 1 = any (p_op) then
        select version into v_horizon from {p}tombstone" order by version desc limit 1 offset p_tombstones;
        if found then
            delete from {p}tombstone" where version <= v_horizon;
            update {p}counter" set horizon = v_horizon;
        end if;
    end if;
end $f$;

create function {p}claim_due"(p_term text, p_lock bigint, p_now bigint, p_holder bytea, p_limit bigint, p_hold bigint, p_skip bytea[])
returns setof {p}lease"
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    p_now := coalesce(p_now, {p}now"());
    return query
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, fence = l.fence + 1
        where l.id = any (array(
            select d.id from {p}lease" d where d.next_at <= p_now
                and (d.holder is null or d.held_until is null or d.held_until <= p_now)
                and d.connection <> all (p_skip)
            order by d.next_at, d.id limit p_limit for update skip locked))
        returning l.*;
end $f$;

create function {p}claim"(p_term text, p_lock bigint, p_now bigint, p_holder bytea, p_id bytea, p_hold bigint)
returns setof {p}lease"
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    p_now := coalesce(p_now, {p}now"());
    return query
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, fence = l.fence + 1
        where l.id = p_id and (l.holder is null or l.held_until is null or l.held_until <= p_now or l.holder = p_holder)
        returning l.*;
end $f$;
