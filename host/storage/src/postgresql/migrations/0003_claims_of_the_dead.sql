-- A claim ends before its time when nothing is heard any more of the server that took it: leases of a server that was killed must not
-- wait for that. Only rows of which an effect may be undone twice: one that is being issued stays with its server until its deadline,
-- and a job until its claim ends.

alter table {p}lease" add column held_by text;

-- `heard_at` is stored twice a second. Either way, because the clock may have been set.
create function {p}is_heard"(p_term text) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $f$
    select exists (select from {p}node" where term = p_term and abs({p}now"() - heard_at) < 3000000000)
$f$;

create or replace function {p}claim_due"(p_term text, p_lock bigint, p_now bigint, p_holder bytea, p_limit bigint, p_hold bigint,
                                         p_skip bytea[])
returns setof {p}lease"
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
begin
    perform {p}guard"(p_term, p_lock);
    p_now := coalesce(p_now, {p}now"());
    return query
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, held_by = p_term, fence = l.fence + 1
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
        update {p}lease" as l set holder = p_holder, held_until = p_now + p_hold, held_by = p_term, fence = l.fence + 1
        where l.id = p_id
            and (l.holder is null or l.held_until is null or l.held_until <= p_now or l.holder = p_holder
                 or (l.kind <> 'job' and l.state <> 'issuing' and l.held_by <> p_term and not {p}is_heard"(l.held_by)))
        returning l.*;
end $f$;
