-- Values by key. Text sorts bytewise, so prefixes are ranges.
create table kv (
    key     text    not null primary key,
    value   blob    not null,
    version integer not null
) strict, without rowid;

-- Lease rows: plain columns to search by, the body sealed by the barrier. Moments are nanoseconds since the epoch.
create table lease (
    id         text    not null primary key,
    kind       text    not null,
    state      text    not null,
    next_at    integer not null,
    expires_at integer not null,
    fence      integer not null,
    holder     text,
    held_until integer,
    token      text    not null,
    mount      text    not null,
    connection text    not null,
    body       blob    not null
) strict, without rowid;

create index lease_due   on lease (next_at, id);
create index lease_token on lease (token, id);
create index lease_mount on lease (mount, id);
create index lease_count on lease (kind, state);

-- The one counter that versions come from: a key made anew gets a greater version than it had.
create table counter (
    name  text    not null primary key,
    value integer not null
) strict, without rowid;

insert into counter (name, value) values ('version', 0);
