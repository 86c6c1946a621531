-- A batch that is written only where nothing is below a prefix (op 6: the key) or no other row of a token than one (op 7: the key is
-- that row's id, the value the token). Asked last, when the batch holds the locks of its keys: whoever puts something there names one
-- of these keys too, and so has committed by now or comes after.
create function {p}commit_if_empty"(
    p_term text, p_lock bigint, p_keys bigint[], p_exclusive boolean[], p_versioned boolean, p_cached boolean, p_tombstones integer,
    p_op smallint[], p_key bytea[], p_value bytea[], p_expect bigint[], p_numbered boolean[],
    p_kind text[], p_state text[], p_from text[], p_next bigint[], p_expires bigint[], p_fence bigint[], p_holder bytea[],
    p_until bigint[], p_token bytea[], p_mount bytea[], p_connection bytea[]
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $f$
declare
    c record;
    v_first bytea;
    v_is_empty boolean;
begin
    perform {p}commit"(p_term, p_lock, p_keys, p_exclusive, p_versioned, p_cached, p_tombstones, p_op, p_key, p_value, p_expect,
                       p_numbered, p_kind, p_state, p_from, p_next, p_expires, p_fence, p_holder, p_until, p_token, p_mount,
                       p_connection);
    for c in
        select * from unnest(p_op, p_key, p_value) with ordinality as t(op, k, v, place) where op in (6, 7)
    loop
        if c.op = 6 then
            select key into v_first from {p}kv" where key >= c.k order by key limit 1;
            v_is_empty := v_first is null or substring(v_first from 1 for length(c.k)) <> c.k;
        else
            v_is_empty := not exists (select from {p}lease" where token = c.v and id <> c.k);
        end if;
        if not v_is_empty then
            raise exception using errcode = 'LH004', message = 'a batch expects that there is nothing', detail = c.place::text;
        end if;
    end loop;
end $f$;
