-- Several servers work at once: a row for each of them, in place of the one row of the server that might write.

drop function {p}hold"(text, text, text, bigint, bigint);
drop function {p}release"(text);
drop table {p}server";

create table {p}node" (
    term        text   not null primary key,
    id          text   not null,
    name        text   not null,
    address     text   not null,
    version     text   not null,
    -- No other server may work on these tables beside this one.
    alone       boolean not null,
    -- The number of the change up to which the server follows; null while it decides nothing.
    applied     bigint,
    -- Raised with each report that is stored.
    beat        bigint not null,
    reported_at bigint not null,
    heard_at    bigint not null,
    joined_at   bigint not null
);

-- In each transaction that writes: a server that was taken off the list writes nothing. Who takes one off waits for the lock alone, and
-- so for the writes that have passed here; and what is written waits for the disk.
create or replace function {p}guard"(p_term text, p_lock bigint) returns void language plpgsql volatile as $f$
begin
    perform {p}fresh"();
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    perform pg_advisory_xact_lock_shared(p_lock);
    if not exists (select from {p}node" where term = p_term) then
        raise exception using errcode = 'LH003', message = 'this server is not on the list';
    end if;
end $f$;

-- Puts a server on the list under a new term, and takes those off that nobody has heard of for `p_forget`. One that is to work alone is
-- refused while another one lives, and so is every other while it does.
create function {p}join"(p_term text, p_id text, p_name text, p_alone boolean, p_stale bigint, p_forget bigint, p_lock bigint)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    v_now bigint := {p}now"();
    v_other text;
begin
    perform {p}fresh"();
    if p_alone then
        perform pg_advisory_xact_lock(p_lock);
    else
        perform pg_advisory_xact_lock_shared(p_lock);
    end if;
    -- One that was frozen while this one begins to work alone must not go on beside it.
    delete from {p}node" where heard_at < v_now - p_forget or (p_alone and heard_at <= v_now - p_stale) or id = p_id;
    select n.name into v_other from {p}node" n where (n.alone or p_alone) and n.heard_at > v_now - p_stale limit 1;
    if found then
        raise exception using errcode = 'LH004', message = v_other;
    end if;
    insert into {p}node" values (p_term, p_id, p_name, '', '', p_alone, null, 0, v_now, v_now, v_now);
end $f$;

-- Says that a server lives, and gives it another term if the two differ. Answers whether it is on the list.
create function {p}beat"(p_mine text, p_next text, p_lock bigint) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '800ms' as $f$
begin
    perform {p}fresh"();
    if p_mine is distinct from p_next then
        perform pg_advisory_xact_lock(p_lock);
    end if;
    update {p}node" set term = p_next, heard_at = {p}now"() where term in (p_mine, p_next);
    return found;
end $f$;

-- Stores what a server says of itself, then answers with the number of the last change, and then with all servers: in this order, see
-- the contract of the seam. A report that says what the last one said is stored when that is `p_every` old.
create function {p}attend"(p_term text, p_id text, p_name text, p_address text, p_version text, p_applied bigint, p_every bigint)
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
        into v_says_it from {p}node" n where n.term = p_term;
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

-- Takes a server off the list if nothing was heard of it since `p_beat`. Writes of it that are under way end first; later ones are
-- refused.
create function {p}expel"(p_id text, p_beat bigint, p_lock bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $f$
begin
    perform {p}fresh"();
    perform pg_advisory_xact_lock(p_lock);
    delete from {p}node" where id = p_id and beat = p_beat;
end $f$;

-- As `expel`: what this server has sent is written before it counts as gone.
create function {p}leave"(p_term text, p_lock bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '800ms' as $f$
begin
    perform {p}fresh"();
    perform pg_advisory_xact_lock(p_lock);
    delete from {p}node" where term = p_term;
end $f$;
