// A certified OpenID Connect provider on loopback, for the demo and the tests of pg_oidc.
//
//   node server.mjs '{"port": 0, "audience": "postgres", "lifetime": 3600, "clients": [
//     {"id": "etl", "secret": "...", "algorithm": "ES256", "claims": {"groups": ["analytics-read"]}}]}'
//
// Every client may ask for an access token by client credentials. The token is a signed JWT (RFC 9068)
// whose `sub` is the client's id; `claims` are put in beside it. A client may have an `audience` of its own,
// and an `age`: its tokens then look as if they had been issued that many seconds ago.
// Lines on standard output:
//   issuer <url>                     once, when requests are accepted
//   request <method> <path>          for every request
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';

// Two warnings of oidc-provider are not news here: that Node 20 is not the newest runtime, and that what
// it keeps in memory is lost when it ends.
const warn = console.warn;
console.warn = (...words) => {
  if (!/oidc-provider WARNING: (a quick start|Unsupported runtime)/i.test(words.join(' '))) warn(...words);
};
const { Provider, errors } = await import('oidc-provider');

const { port = 0, audience, lifetime = 3600, clients } = JSON.parse(process.argv[2]);
const server = createServer();
server.listen(port, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  kid: `${alg.toLowerCase()}-${randomUUID()}`,
  use: 'sig',
  alg,
});
const known = new Map(clients.map((client) => [client.id, client]));

const provider = new Provider(issuer, {
  clients: clients.map(({ id, secret }) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  jwks: {
    keys: [
      key('RS256', 'rsa', { modulusLength: 2048 }),
      key('ES256', 'ec', { namedCurve: 'P-256' }),
      key('EdDSA', 'ed25519'),
    ],
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, client) => known.get(client.clientId).audience ?? audience,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource, client) => {
        const { algorithm = 'RS256', audience: own = audience } = known.get(client.clientId);
        if (resource !== own) throw new errors.InvalidTarget();
        return {
          scope: '',
          audience: own,
          accessTokenFormat: 'jwt',
          accessTokenTTL: lifetime,
          jwt: { sign: { alg: algorithm } },
        };
      },
    },
  },
  enabledJWA: {
    idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'],
  },
  extraTokenClaims: (_ctx, token) => known.get(token.clientId).claims,
  formats: {
    customizers: {
      jwt: (_ctx, token, { payload }) => {
        const { age = 0 } = known.get(token.clientId);
        payload.iat -= age;
        payload.exp -= age;
      },
    },
  },
  ttl: { ClientCredentials: lifetime },
});

const answer = provider.callback();
server.on('request', (request, response) => {
  console.log(`request ${request.method} ${request.url}`);
  answer(request, response);
});
console.log(`issuer ${issuer}`);
