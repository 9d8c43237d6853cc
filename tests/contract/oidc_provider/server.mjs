// An OpenID provider that anybody can sign in to, for tests: ISSUER, REDIRECT_URI and PORT come by environment.
// ADDRESS is where it listens, loopback by default; CERTIFICATE and KEY name files, and make it speak TLS.
// ACCOUNTS names a file that holds the groups of each account, read at every question; without it all are one.
import { createServer, request } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

// BACKCHANNEL is where it says that sessions ended; names below localhost are this machine.
const { ISSUER, REDIRECT_URI, ADDRESS, PORT, CERTIFICATE, KEY } = process.env;
const { SSH_KEY, ACCOUNTS, BACKCHANNEL, FRESH_KEY } = process.env;

const post = (url, { headers, body }) => new Promise((resolve, reject) => {
  const { host, port, pathname } = new URL(url);
  const to = { host: '127.0.0.1', port, path: pathname, method: 'POST', headers: { ...Object.fromEntries(new Headers(headers)), host } };
  request(to, (answer) => { answer.resume(); resolve(new Response(null, { status: answer.statusCode })); })
    .on('error', reject)
    .end(String(body));
});

// FRESH_KEY: every start signs with a key of its own, as after a rotation.
const freshKey = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(), use: 'sig', alg: 'RS256',
});

const groupsOf = (sub) => (ACCOUNTS ? JSON.parse(readFileSync(ACCOUNTS))[sub] : ['wonderland']);

const provider = new Provider(ISSUER, {
  clients: [{
    client_id: 'fairlead',
    client_secret: 'not-much-of-a-secret',
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    redirect_uris: [REDIRECT_URI],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_post',
    ...(BACKCHANNEL ? { backchannel_logout_uri: BACKCHANNEL, backchannel_logout_session_required: true } : {}),
  }],
  claims: {
    openid: ['sub'],
    profile: ['preferred_username', 'name', 'groups', 'ssh_keys'],
    email: ['email', 'email_verified'],
  },
  ...(FRESH_KEY ? { jwks: { keys: [freshKey()] } } : {}),
  cookies: { keys: ['only for tests'] },
  features: { deviceFlow: { enabled: true }, backchannelLogout: { enabled: Boolean(BACKCHANNEL) } },
  ...(BACKCHANNEL ? { fetch: post } : {}),
  rotateRefreshToken: true,
  findAccount: (context, sub) => groupsOf(sub) && ({
    accountId: sub,
    claims: () => ({
      sub,
      preferred_username: sub,
      name: `${sub} of oidc-provider`,
      groups: groupsOf(sub),
      ssh_keys: SSH_KEY ? [SSH_KEY] : [],
      email: `${sub}@wonder.example`,
      email_verified: true,
    }),
  }),
  pkce: { required: () => true },
});

provider.on('backchannel.error', (context, error) => console.error(error));

const answer = provider.callback();
const server = CERTIFICATE
  ? createTlsServer({ cert: readFileSync(CERTIFICATE), key: readFileSync(KEY) }, answer)
  : createServer(answer);
server.listen(Number(PORT), ADDRESS ?? '127.0.0.1', () => console.log('listening'));
