// openid-client registers itself, signs a person in, reads who that is, refreshes, calls the API with
// a bound token, introspects and revokes.
import assert from "node:assert/strict";
import * as client from "openid-client";
import { browse } from "./browser.mjs";

const api = process.env.OASGATE_TEST_URL;
const issuer = new URL(api);
const redirect = "http://localhost:8099/callback";
const insecure = { execute: [client.allowInsecureRequests] }; // http, on this machine

const config = await client.dynamicClientRegistration(issuer, {
  redirect_uris: [redirect], client_name: "A test", token_endpoint_auth_method: "none",
}, client.None(), insecure);

const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
const nonce = client.randomNonce();
const { location, page } = await browse(client.buildAuthorizationUrl(config, {
  redirect_uri: redirect, scope: "openid email offline_access read:messages", state, nonce,
  code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
}), "alice");
assert.match(page, /registered as “A test”/);

// Tokens are bound to a key of the client (DPoP).
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256"));
const tokens = await client.authorizationCodeGrant(config, location, {
  pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce,
}, undefined, { DPoP });
assert.equal(tokens.claims().sub, "alice");
assert.equal(tokens.token_type, "dpop");
const bound = await client.fetchProtectedResource(config, tokens.access_token, new URL("/api/private-scoped", api), "GET", undefined, undefined, { DPoP });
assert.equal(bound.status, 200);

// Without a proof the next tokens are bearer tokens: the refresh token is bound, so it is refused.
await assert.rejects(client.refreshTokenGrant(config, tokens.refresh_token), { error: "invalid_grant" });

// As app, which dev has, with bearer tokens.
const app = await client.discovery(issuer, "app", undefined, client.None(), insecure);
const again = await browse(client.buildAuthorizationUrl(app, {
  redirect_uri: "http://localhost:8099/callback", scope: "openid email offline_access read:messages",
  code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
}), "bob");
const bearer = await client.authorizationCodeGrant(app, again.location, { pkceCodeVerifier: verifier });
assert.deepEqual(await client.fetchUserInfo(app, bearer.access_token, "bob"), { sub: "bob", email: "bob@people.example" });
const next = await client.refreshTokenGrant(app, bearer.refresh_token);

// full has a secret: it gets tokens for itself, and asks about others'.
const full = await client.discovery(issuer, "full", undefined, client.ClientSecretPost("for-development-only"), insecure);
const own = await client.clientCredentialsGrant(full, { resource: api, scope: "read:messages" });
assert.equal((await client.tokenIntrospection(full, own.access_token)).client_id, "full");
assert.equal((await client.tokenIntrospection(full, next.access_token)).sub, "bob");
await client.tokenRevocation(app, next.refresh_token);
assert.deepEqual(await client.tokenIntrospection(full, next.access_token), { active: false });

const wrong = await client.discovery(issuer, "full", undefined, client.ClientSecretPost("x"), insecure);
await assert.rejects(client.clientCredentialsGrant(wrong, { resource: api }), { error: "invalid_client", status: 400 });
