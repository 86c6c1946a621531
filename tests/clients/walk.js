// Walks node-vault over mounts, policies, tokens, leases, userpass, approle and kv.
//
// Needs VAULT_ADDR and VAULT_TOKEN (root), and a database role `readonly` at `database/`.
// Every step asserts what it got; the last line says how many held.
'use strict';

const vault = require('node-vault');

let held = 0;
function check(text, holds) {
  if (!holds) throw new Error(`does not hold: ${text}`);
  held += 1;
}

async function refused(status, call) {
  try {
    await call;
  } catch (error) {
    return error.response !== undefined && error.response.statusCode === status;
  }
  return false;
}

const as = (token) => vault({ apiVersion: 'v1', endpoint: process.env.VAULT_ADDR, token });

async function walk() {
  const root = as(process.env.VAULT_TOKEN);
  const nobody = as(undefined);

  check('health', (await root.health()).sealed === false);
  check('status', (await root.status()).initialized === true);
  check('initialized', (await root.initialized()).initialized === true);

  await root.mount({ mount_point: 'node-kv', type: 'kv', description: 'walked', options: { version: '1' } });
  check('mounts', (await root.mounts()).data['node-kv/'].type === 'kv');

  await root.write('node-kv/app/db', { user: 'u', size: 5 });
  check('read', (await root.read('node-kv/app/db')).data.size === 5);
  check('list', (await root.list('node-kv')).data.keys[0] === 'app/');
  await root.delete('node-kv/app/db');
  check('deleted', await refused(404, root.read('node-kv/app/db')));
  await root.write('node-kv/top', { a: 'b' });

  const made2 = await root.write('secret/data/app', { data: { user: 'u' }, options: { cas: 0 } });
  check('a first version', made2.data.version === 1);
  check('a wrong version', await refused(400, root.write('secret/data/app', { data: {}, options: { cas: 0 } })));
  check('a version', (await root.read('secret/data/app')).data.data.user === 'u');
  check('a list of keys', (await root.list('secret/metadata')).data.keys[0] === 'app');
  await root.delete('secret/data/app');
  check('a deleted version', await refused(404, root.read('secret/data/app')));
  await root.write('secret/undelete/app', { versions: [1] });
  check('it is back', (await root.read('secret/data/app')).data.metadata.version === 1);

  const rules = 'path "node-kv/*" { capabilities = ["read"] }\npath "database/creds/readonly" { capabilities = ["read"] }';
  await root.addPolicy({ name: 'node-walk', rules });
  check('policies', (await root.policies()).data.policies.includes('node-walk'));
  check('policy', (await root.getPolicy({ name: 'node-walk' })).data.rules.includes('node-kv/*'));

  // `tokenCreate` makes the client go on as the new token, so the root client is kept apart.
  const made = (await as(process.env.VAULT_TOKEN).tokenCreate({ policies: ['node-walk'], ttl: '1h' })).auth;
  const child = as(made.client_token);
  check('lookup-self', (await child.tokenLookupSelf()).data.policies.includes('node-walk'));
  check('lookup', (await root.tokenLookup({ token: made.client_token })).data.accessor === made.accessor);
  check('renew-self', (await child.tokenRenewSelf({ increment: 1800 })).auth.lease_duration === 1800);
  check('accessors', (await root.tokenAccessors()).data.keys.includes(made.accessor));
  check('denied', await refused(403, child.write('node-kv/top', { a: 'c' })));

  const lease = await child.read('database/creds/readonly');
  check('credentials', lease.renewable && lease.data.username.startsWith('v-'));
  check('renewed', (await root.renew({ lease_id: lease.lease_id, increment: 600 })).lease_duration === 600);
  await root.revoke({ lease_id: lease.lease_id });
  check('revoked', await refused(400, root.write('sys/leases/lookup', { lease_id: lease.lease_id })));
  await child.read('database/creds/readonly');
  await root.revokePrefix({ path_prefix: 'database/creds/readonly' });
  check('prefix', await refused(404, root.list('sys/leases/lookup/database/creds/readonly')));

  await root.enableAuth({ mount_point: 'node-users', type: 'userpass' });
  check('auths', (await root.auths()).data['node-users/'].type === 'userpass');
  await root.write('auth/node-users/users/ada', { password: 'first-one', policies: 'node-walk' });
  const person = await nobody.userpassLogin({ username: 'ada', password: 'first-one', mount_point: 'node-users' });
  check('login', person.auth.metadata.username === 'ada');
  const wrong = as(undefined).userpassLogin({ username: 'ada', password: 'wrong', mount_point: 'node-users' });
  check('a wrong password', await refused(400, wrong));
  await root.disableAuth({ mount_point: 'node-users' });
  check('its token is gone', await refused(403, as(person.auth.client_token).tokenLookupSelf()));

  await root.enableAuth({ mount_point: 'node-roles', type: 'approle' });
  await root.addApproleRole({ mount_point: 'node-roles', role_name: 'web', policies: 'node-walk', token_ttl: 1200 });
  check('roles', (await root.approleRoles({ mount_point: 'node-roles' })).data.keys.includes('web'));
  const roleId = (await root.getApproleRoleId({ mount_point: 'node-roles', role_name: 'web' })).data.role_id;
  const secret = (await root.getApproleRoleSecret({ mount_point: 'node-roles', role_name: 'web' })).data;
  const app = await as(undefined).approleLogin({ mount_point: 'node-roles', role_id: roleId, secret_id: secret.secret_id });
  check('approle login', app.auth.metadata.role_name === 'web' && app.auth.lease_duration === 1200);
  check('the app reads', (await as(app.auth.client_token).read('node-kv/top')).data.a === 'b');
  await root.disableAuth({ mount_point: 'node-roles' });

  await root.tokenRevokeAccessor({ accessor: made.accessor });
  check('revoked token', await refused(403, child.tokenLookupSelf()));
  await root.removePolicy({ name: 'node-walk' });
  await root.unmount({ mount_point: 'node-kv' });
  check('unmounted', (await root.mounts()).data['node-kv/'] === undefined);

  console.log(`node-vault: all ${held} steps held`);
}

walk().catch((error) => {
  console.error(error.message, error.response ? JSON.stringify(error.response.body) : '');
  process.exit(1);
});
