-- How many rows of each kind and state there are, kept in the transaction that changes them: a scrape reads a handful of rows,
-- however many leases there are. The index that was there for counting goes.
drop index lease_count;

create table lease_count (
    kind  text    not null,
    state text    not null,
    rows  integer not null,
    primary key (kind, state)
) strict, without rowid;

insert into lease_count (kind, state, rows) select kind, state, count(*) from lease group by kind, state;

create trigger lease_counted after insert on lease begin
    insert into lease_count (kind, state, rows) values (new.kind, new.state, 1)
        on conflict (kind, state) do update set rows = rows + 1;
end;

create trigger lease_uncounted after delete on lease begin
    update lease_count set rows = rows - 1 where kind = old.kind and state = old.state;
end;

-- A claim or a renewal changes neither and fires nothing.
create trigger lease_recounted after update of kind, state on lease when old.kind <> new.kind or old.state <> new.state begin
    update lease_count set rows = rows - 1 where kind = old.kind and state = old.state;
    insert into lease_count (kind, state, rows) values (new.kind, new.state, 1)
        on conflict (kind, state) do update set rows = rows + 1;
end;
