-- A standby that takes over begins a new timeline, and may lack what the primary had answered last. Each server keeps its latest writes
-- and replays those that are lost, before any server works on the new timeline.

-- The timeline of the server that is asked, which must take writes. 0 where PostgreSQL does not answer what is needed to know what was
-- lost: then every fail-over goes unnoticed.
do $do$
begin
    perform pg_walfile_name(pg_current_wal_lsn()), pg_current_wal_insert_lsn(), pg_last_wal_replay_lsn(),
        pg_xact_status(pg_current_xact_id());
    execute $e$
        create function {p}timeline"() returns bigint language sql stable set search_path = pg_catalog, pg_temp as $f$
            select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
        $f$
    $e$;
exception when others then
    execute $e$
        create function {p}timeline"() returns bigint language sql immutable as $f$ select 0::bigint $f$
    $e$;
end $do$;

alter table {p}counter"
    -- The one that servers work on, or are about to.
    add column timeline  bigint  not null default 0,
    -- When it was noticed.
    add column begun_at  bigint  not null default 0,
    -- Every server that lives has replayed what it had: they work on it.
    add column is_open   boolean not null default true,
    -- Up to this position the timeline before is part of this one; null where that is not known.
    add column lost_after bigint;
alter table {p}node"
    -- Under which timeline its term holds.
    add column timeline bigint not null default 0,
    -- Up to which timeline it has replayed what was lost.
    add column replayed bigint not null default 0;
update {p}counter" set timeline = {p}timeline"();
update {p}node" set timeline = {p}timeline"(), replayed = {p}timeline"();

-- What was replayed on a timeline that is not open yet, and where that write stood on the one before: keys after a `k`, ids of leases
-- after an `l`; and after an `r` those of leases that are being revoked and that nobody has replayed so far.
create table {p}replayed" (
    key bytea  not null primary key,
    lsn bigint not null
);

-- Where the transaction is that has just written, who it is, and the number of its change if it has one: enough to tell later whether it
-- was lost.
create function {p}receipt"(p_cached boolean) returns bigint[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $f$
declare
    v_number bigint;
begin
    if p_cached then
        select value into v_number from {p}counter";
    end if;
    if {p}timeline"() = 0 then
        return array[0, 0, v_number];
    end if;
    return array[(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, pg_current_xact_id()::text::bigint, v_number];
end $f$;

-- Notices a new timeline. Numbers, versions and fences leap, so that none is given twice.
create function {p}note_timeline"() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $f$
declare
    v_now bigint := {p}timeline"();
    c_leap constant bigint := 4294967296;
begin
    if exists (select from {p}counter" where timeline = v_now) then
        return;
    end if;
    update {p}counter" set
        timeline = v_now, begun_at = {p}now"(), is_open = false, value = value + c_leap,
        -- Of a server that was started again since it took over, and after several fail-overs at once, it is not known.
        lost_after = case when timeline = v_now - 1 then (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint end
        where timeline <> v_now;
    if found then
        perform setval('{n}version"'::regclass, nextval('{n}version"'::regclass) + c_leap);
        delete from {p}replayed";
    end if;
end $f$;

-- The timeline, since when, whether servers work on it, and which of a server's writes on the timeline `p_from` are lost on it; null: not
-- known.
create function {p}lost"(p_from bigint, p_lsn bigint[], p_xid bigint[])
returns table (o_timeline bigint, o_begun_at bigint, o_is_open boolean, o_lost_after bigint, o_lost boolean[])
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}fresh"();
    perform {p}note_timeline"();
    select timeline, begun_at, is_open, lost_after into o_timeline, o_begun_at, o_is_open, o_lost_after from {p}counter";
    if p_from <> o_timeline - 1 then
        o_lost_after := null;
    end if;
    -- Of a transaction that had written before that position the number is not given again, and it has ended one way or the other.
    o_lost := array(
        select case when o_lost_after is null then null
                    -- One that had nothing to write may have a number that this timeline has not reached.
                    when t.lsn > o_lost_after or t.xid::text::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) then true
                    else pg_xact_status(t.xid::text::xid8) is distinct from 'committed' end
        from unnest(p_lsn, p_xid) with ordinality as t(lsn, xid, place) order by place);
    return next;
end $f$;

-- Replays a lost batch. False: what it stands on is not there, perhaps not yet: a version of a key under `sys/`, or a row. Elsewhere the
-- write that came last counts, whoever replays first. `p_only_ends`: the batch holds only what ends a token or a lease.
create function {p}replay"(
    p_timeline bigint, p_lsn bigint, p_number bigint, p_only_ends boolean, p_keys bigint[], p_exclusive boolean[],
    p_op smallint[], p_key bytea[], p_value bytea[], p_expect bigint[], p_numbered boolean[],
    p_kind text[], p_state text[], p_from text[], p_next bigint[], p_expires bigint[], p_fence bigint[], p_holder bytea[],
    p_until bigint[], p_token bytea[], p_mount bytea[], p_connection bytea[]
) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    c record;
    v_counter {p}counter"%rowtype;
    v_name bytea;
    v_found bigint;
    v_last bigint;
    v_fits boolean;
    v_kind text;
    v_state text;
    v_kinds text[] := '{}';
    v_states text[] := '{}';
    v_by bigint[] := '{}';
begin
    perform {p}fresh"();
    -- The server that replays says at its end that it has, and that waits for the disk.
    perform set_config('synchronous_commit', 'off', true);
    for i in 1 .. coalesce(array_length(p_keys, 1), 0) loop
        if p_exclusive[i] then
            perform pg_advisory_xact_lock(p_keys[i]);
        else
            perform pg_advisory_xact_lock_shared(p_keys[i]);
        end if;
    end loop;
    -- One after the other, until servers work on the timeline. Then only ends, which hold up nobody.
    if p_only_ends then
        select * into v_counter from {p}counter";
    else
        select * into v_counter from {p}counter" for update;
    end if;
    if v_counter.timeline <> p_timeline or (v_counter.is_open and not p_only_ends) or {p}timeline"() <> p_timeline then
        raise exception using errcode = 'LH006', message = 'servers work on this timeline already';
    end if;
    if not p_only_ends then
        -- It was replayed before, and the answer was lost.
        if exists (
            select from unnest(p_op, p_key) as t(op, k) join {p}replayed" r
                on r.key = case when op in (3, 4, 5) then '\x6c'::bytea else '\x6b'::bytea end || k
                where op in (0, 1, 3, 4, 5) and r.lsn = p_lsn
        ) then
            return true;
        end if;
        for c in select * from unnest(p_op, p_key, p_expect) as t(op, k, expect)
            where op <= 2 and expect <> -1 and k >= '\x7379732f'::bytea and k < '\x73797330'::bytea
        loop
            select version into v_found from {p}kv" where key = c.k;
            v_fits := case c.expect when -2 then v_found is null when -3 then v_found is not null
                                    else v_found is not null and v_found = c.expect end;
            -- It held when this was written; what is there now came after that.
            v_fits := v_fits or (c.op = 2 and exists (select from {p}replayed" where key = '\x6b'::bytea || c.k and lsn > p_lsn));
            if not v_fits then
                return false;
            end if;
        end loop;
        -- A row that keeps its body, and whoever has made it is to replay that first.
        if exists (
            select from unnest(p_op, p_key, p_value) as t(op, k, v) where op = 4 and length(v) = 0
                and not exists (select from {p}lease" where id = k)
                and not exists (select from {p}replayed" where key = '\x6c'::bytea || k and lsn > p_lsn)
        ) then
            return false;
        end if;
    end if;
    for c in
        select * from unnest(p_op, p_key, p_value, p_numbered, p_kind, p_state, p_next, p_expires, p_fence, p_holder, p_until, p_token,
                             p_mount, p_connection)
            as t(op, k, v, numbered, kind, state, next_at, expires_at, fence, holder, held_until, token, mount, connection)
            where op in (0, 1, 3, 4, 5)
    loop
        if not v_counter.is_open then
            v_name := case when c.op in (3, 4, 5) then '\x6c'::bytea else '\x6b'::bytea end || c.k;
            select lsn into v_last from {p}replayed" where key = v_name;
            continue when v_last > p_lsn;
            -- Not of a revocation alone: whoever has made the row may have yet to replay that.
            if not p_only_ends or c.op in (1, 5) then
                insert into {p}replayed" as r (key, lsn) values (v_name, p_lsn) on conflict (key) do update set lsn = excluded.lsn;
            end if;
        end if;
        if c.op = 0 then
            insert into {p}kv" as kv (key, value, version)
                values (c.k, c.v, case when c.numbered then p_number else nextval('{n}version"'::regclass) end)
                on conflict (key) do update set value = excluded.value, version = excluded.version;
            if c.numbered then
                delete from {p}tombstone" where key = c.k;
            end if;
        elsif c.op = 1 then
            delete from {p}kv" where key = c.k;
            if c.numbered then
                insert into {p}tombstone" as t (key, version) values (c.k, p_number)
                    on conflict (key) do update set version = excluded.version;
            end if;
        elsif c.op = 5 then
            delete from {p}lease" where id = c.k returning kind, state into v_kind, v_state;
            if found then
                v_kinds := v_kinds || v_kind;
                v_states := v_states || v_state;
                v_by := v_by || (-1)::bigint;
            end if;
        else
            if not p_only_ends and exists (select from {p}replayed" where key = '\x72'::bytea || c.k and lsn > p_lsn) then
                c.next_at := case c.state when 'issuing' then coalesce(c.held_until, c.next_at) else {p}now"() end;
                c.state := 'revoking';
            end if;
            -- Of a row that is being issued the effect may be under way: nobody else takes it before that is over.
            if c.state <> 'issuing' then
                c.holder := null;
                c.held_until := null;
            end if;
            select kind, state into v_kind, v_state from {p}lease" where id = c.k for update;
            if found then
                update {p}lease" as l set state = c.state, next_at = c.next_at, fence = greatest(l.fence, c.fence),
                    holder = c.holder, held_until = c.held_until, held_by = null,
                    -- The body is bound to it.
                    expires_at = case length(c.v) when 0 then l.expires_at else c.expires_at end,
                    body = case length(c.v) when 0 then l.body else c.v end
                    where l.id = c.k;
                v_kinds := v_kinds || v_kind || v_kind;
                v_states := v_states || v_state || c.state;
                v_by := v_by || array[-1, 1]::bigint[];
            elsif length(c.v) > 0 and not p_only_ends then
                insert into {p}lease" (id, kind, state, next_at, expires_at, fence, holder, held_until, token, mount, connection, body)
                    values (c.k, c.kind, c.state, c.next_at, c.expires_at, c.fence, c.holder, c.held_until, c.token, c.mount,
                            c.connection, c.v);
                v_kinds := v_kinds || c.kind;
                v_states := v_states || c.state;
                v_by := v_by || 1::bigint;
            elsif p_only_ends and not v_counter.is_open then
                insert into {p}replayed" as r (key, lsn) values ('\x72'::bytea || c.k, p_lsn)
                    on conflict (key) do update set lsn = greatest(r.lsn, excluded.lsn);
            end if;
        end if;
    end loop;
    if cardinality(v_by) > 0 then
        perform {p}counted"(v_kinds, v_states, v_by);
    end if;
    return true;
end $f$;

-- This server is at it: the others wait on.
create function {p}replays"(p_term text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $f$
    update {p}node" set heard_at = {p}now"() where term = p_term
$f$;

-- This server has replayed all that it had.
create function {p}has_replayed"(p_term text, p_timeline bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $f$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    update {p}node" set replayed = p_timeline where term = p_term;
end $f$;

-- As before; a term holds on one timeline only.
create or replace function {p}guard"(p_term text, p_lock bigint) returns void language plpgsql volatile as $f$
begin
    perform {p}fresh"();
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    perform pg_advisory_xact_lock_shared(p_lock);
    if not exists (select from {p}node" where term = p_term and timeline = {p}timeline"()) then
        raise exception using errcode = 'LH003', message = 'this server is not on the list';
    end if;
end $f$;

create or replace function {p}join"(p_term text, p_id text, p_name text, p_alone boolean, p_stale bigint, p_forget bigint, p_lock bigint)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    v_now bigint := {p}now"();
    v_other text;
    v_counter {p}counter"%rowtype;
begin
    perform {p}fresh"();
    if p_alone then
        perform pg_advisory_xact_lock(p_lock);
    else
        perform pg_advisory_xact_lock_shared(p_lock);
    end if;
    perform {p}note_timeline"();
    select * into v_counter from {p}counter";
    if not v_counter.is_open then
        -- For 6 s, as a server that died with the primary never replays anything; for up to a minute while one is heard to be at it.
        if exists (
            select from {p}node" where replayed < v_counter.timeline
                and (abs(v_now - v_counter.begun_at) < 6000000000
                     or (abs(v_now - v_counter.begun_at) < 60000000000 and abs(v_now - heard_at) < 2000000000))
        ) then
            raise exception using errcode = 'LH005', message = 'not every server has replayed yet what was lost in the fail-over';
        end if;
        update {p}counter" set is_open = true;
        delete from {p}replayed";
    end if;
    -- One that was frozen while this one begins to work alone must not go on beside it.
    delete from {p}node" where heard_at < v_now - p_forget or (p_alone and heard_at <= v_now - p_stale) or id = p_id
        or timeline <> v_counter.timeline;
    select n.name into v_other from {p}node" n where (n.alone or p_alone) and n.heard_at > v_now - p_stale limit 1;
    if found then
        raise exception using errcode = 'LH004', message = v_other;
    end if;
    insert into {p}node" (term, id, name, address, version, alone, applied, beat, reported_at, heard_at, joined_at, timeline, replayed)
        values (p_term, p_id, p_name, '', '', p_alone, null, 0, v_now, v_now, v_now, v_counter.timeline, v_counter.timeline);
end $f$;

create or replace function {p}beat"(p_mine text, p_next text, p_lock bigint) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '800ms' as $f$
begin
    perform {p}fresh"();
    if p_mine is distinct from p_next then
        perform pg_advisory_xact_lock(p_lock);
    end if;
    -- In a transaction that ends well, whoever asks: `join` is refused for a while, and what it has noted with it.
    perform {p}note_timeline"();
    update {p}node" set term = p_next, heard_at = case timeline when {p}timeline"() then {p}now"() else heard_at end
        where term in (p_mine, p_next);
    return exists (select from {p}node" where term = p_next and timeline = {p}timeline"());
end $f$;

create or replace function {p}attend"(p_term text, p_id text, p_name text, p_address text, p_version text, p_applied bigint,
                                      p_every bigint)
returns table (o_changed bigint, o_now bigint, o_id text, o_name text, o_address text, o_version text, o_applied bigint, o_beat bigint,
               o_heard_at bigint, o_joined_at bigint)
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    v_now bigint := {p}now"();
    v_changed bigint;
    v_says_it boolean;
begin
    perform {p}fresh"();
    select (n.id, n.name, n.address, n.version, n.applied) is not distinct from (p_id, p_name, p_address, p_version, p_applied)
            and abs(v_now - n.reported_at) < p_every
        into v_says_it from {p}node" n where n.term = p_term and n.timeline = {p}timeline"();
    if not found then
        raise exception using errcode = 'LH003', message = 'this server is not on the list';
    end if;
    if not v_says_it then
        update {p}node" n set id = p_id, name = p_name, address = p_address, version = p_version, applied = p_applied,
            beat = n.beat + 1, reported_at = v_now, heard_at = v_now where n.term = p_term;
        if not found then
            raise exception using errcode = 'LH003', message = 'this server is not on the list';
        end if;
    end if;
    select c.value into v_changed from {p}counter" c;
    return query select v_changed, v_now, n.id, n.name, n.address, n.version, n.applied, n.beat, n.heard_at, n.joined_at
        from {p}node" n order by n.joined_at, n.id;
end $f$;

-- No fence of an earlier timeline is given again: claims may be among what is lost. Numbers leap with each.
create function {p}fence_after"(p_fence bigint) returns bigint language sql stable as $f$
    select greatest(p_fence + 1, (select (value >> 32) << 32 from {p}counter"))
$f$;

create or replace function {p}claim_due"(p_term text, p_lock bigint, p_now bigint, p_holder bytea, p_limit bigint, p_hold bigint,
                                         p_skip bytea[])
returns setof {p}lease"
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    p_now := coalesce(p_now, {p}now"());
    return query
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, held_by = p_term, fence = {p}fence_after"(l.fence)
        where l.id = any (array(
            select d.id from {p}lease" d where d.next_at <= p_now
                and (d.holder is null or d.held_until is null or d.held_until <= p_now
                     or (d.kind <> 'job' and d.state <> 'issuing' and d.held_by <> p_term and not {p}is_heard"(d.held_by)))
                and d.connection <> all (p_skip)
            order by d.next_at, d.id limit p_limit for update skip locked))
        returning l.*;
end $f$;

create or replace function {p}claim"(p_term text, p_lock bigint, p_now bigint, p_holder bytea, p_id bytea, p_hold bigint)
returns setof {p}lease"
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    p_now := coalesce(p_now, {p}now"());
    return query
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, held_by = p_term, fence = {p}fence_after"(l.fence)
        where l.id = p_id
            and (l.holder is null or l.held_until is null or l.held_until <= p_now or l.holder = p_holder
                 or (l.kind <> 'job' and l.state <> 'issuing' and l.held_by <> p_term and not {p}is_heard"(l.held_by)))
        returning l.*;
end $f$;
