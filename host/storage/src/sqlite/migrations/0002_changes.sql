-- What has changed under the cached prefix, `sys/`: written values are found by their version, deleted keys by a tombstone.
create index kv_changed on kv (version) where key >= 'sys/' and key < 'sys0';

create table tombstone (
    key     text    not null primary key,
    version integer not null
) strict, without rowid;

create index tombstone_version on tombstone (version);

-- Tombstones up to this version may have been removed.
insert into counter (name, value) values ('horizon', 0);
