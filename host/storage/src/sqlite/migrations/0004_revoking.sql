-- What is being revoked, in the order of ids: few rows, which are looked for among all leases at each start and when they are listed.
create index lease_revoking on lease (id) where state = 'revoking';
