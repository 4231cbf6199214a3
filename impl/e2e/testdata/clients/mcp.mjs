// The Model Context Protocol's client walks from a 401 to a token and a 200, and knows nothing but the
// address of the API. The API is no MCP server: authorization is all that is tried.
import assert from "node:assert/strict";
import { auth, extractWWWAuthenticateParams } from "@modelcontextprotocol/sdk/client/auth.js";
import { browse } from "./browser.mjs";

const api = new URL("/api/private-scoped", process.env.OASGATE_TEST_URL);
const refused = await fetch(api);
assert.equal(refused.status, 401);
const { resourceMetadataUrl, scope } = extractWWWAuthenticateParams(refused);
assert.equal(scope, "read:messages");

const saved = {};
let code;
const provider = {
  redirectUrl: "http://localhost:8099/callback",
  clientMetadata: {
    redirect_uris: ["http://localhost:8099/callback"], client_name: "An agent",
    grant_types: ["authorization_code", "refresh_token"], response_types: ["code"], token_endpoint_auth_method: "none",
  },
  state: () => "state",
  clientInformation: () => saved.client,
  saveClientInformation: (client) => { saved.client = client; },
  tokens: () => saved.tokens,
  saveTokens: (tokens) => { saved.tokens = tokens; },
  saveCodeVerifier: (verifier) => { saved.verifier = verifier; },
  codeVerifier: () => saved.verifier,
  redirectToAuthorization: async (at) => {
    const { location } = await browse(at, "alice");
    assert.equal(location.searchParams.get("state"), "state");
    code = location.searchParams.get("code");
    saved.iss = location.searchParams.get("iss");
  },
};

const serverUrl = process.env.OASGATE_TEST_URL;
assert.equal(await auth(provider, { serverUrl, resourceMetadataUrl, scope }), "REDIRECT");
assert.equal(await auth(provider, { serverUrl, resourceMetadataUrl, scope, authorizationCode: code, iss: saved.iss }), "AUTHORIZED");

const call = (path) => fetch(new URL(path, api), { headers: { authorization: `Bearer ${saved.tokens.access_token}` } });
assert.equal((await call("/api/private-scoped")).status, 200);

// A token without the scope: the 403 says what to come back with, and where.
const lacking = await fetch(new URL("/api/messages", api), {
  method: "POST", body: "{}", headers: { authorization: `Bearer ${saved.tokens.access_token}`, "content-type": "application/json" },
});
assert.equal(lacking.status, 403);
const more = extractWWWAuthenticateParams(lacking);
assert.equal(more.scope, "write:messages");
assert.equal(String(more.resourceMetadataUrl), String(resourceMetadataUrl));
