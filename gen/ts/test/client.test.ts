// What becomes of a token and of a secret, against servers that say what reached them. None of it depends on what is in
// openapi.yaml.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { type APIClientOptions, clientCredentials, createAPIClient } from "../client.ts";

interface Received {
  method: string | undefined;
  contentType: string | undefined;
  authorization: string | undefined;
  body: string;
}

/** A server on a free port of this machine, until the test ends. */
async function listen(t: TestContext, answer: (response: ServerResponse, request: IncomingMessage) => void) {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) {
      body += chunk;
    }
    const { "content-type": contentType, authorization } = request.headers;
    received.push({ method: request.method, contentType, authorization, body });
    answer(response, request);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}

function json(response: ServerResponse, status: number, body: unknown) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

/** An issuer whose tokens are named by their number, and live for five minutes. */
function issuing(t: TestContext) {
  let issued = 0;
  return listen(t, (response) => json(response, 200, { access_token: `token-${++issued}`, token_type: "Bearer", expires_in: 300 }));
}

/** A client's GET of a path that no document need know. */
function getter(options: APIClientOptions) {
  return createAPIClient(options).GET as unknown as (path: string, init?: { baseUrl: string }) => Promise<{ data?: unknown }>;
}

const client = { clientID: "me", clientSecret: "a secret" };

test("every value reaches the token endpoint as it is", async (t) => {
  const issuer = await issuing(t);
  await clientCredentials({
    tokenEndpoint: issuer.url,
    clientID: "a&b=c",
    clientSecret: "%41+é \"'",
    audience: "https://quickstarts/api?x=1#y",
    scopes: ["read:messages", "write:messages"],
  })();
  assert.equal(issuer.received[0]?.method, "POST");
  assert.match(issuer.received[0]?.contentType ?? "", /^application\/x-www-form-urlencoded\b/);
  assert.equal(
    issuer.received[0]?.body,
    "grant_type=client_credentials&client_id=a%26b%3Dc&client_secret=%2541%2B%C3%A9+%22%27" +
      "&audience=https%3A%2F%2Fquickstarts%2Fapi%3Fx%3D1%23y&scope=read%3Amessages+write%3Amessages",
  );
});

test("a token is kept until 30 seconds before it expires", async (t) => {
  const issuer = await issuing(t);
  let seconds = 0;
  const token = clientCredentials({ ...client, tokenEndpoint: issuer.url, now: () => seconds * 1000 });
  for (const [at, expected] of [[0, "token-1"], [269.9, "token-1"], [270, "token-2"], [539.9, "token-2"], [540, "token-3"]] as const) {
    seconds = at;
    assert.equal(await token(), expected, `after ${at} s`);
  }
});

test("a token of which nobody says how long it lives is not kept", async (t) => {
  const issuer = await listen(t, (response) => json(response, 200, { access_token: "token", token_type: "bearer" }));
  const token = clientCredentials({ ...client, tokenEndpoint: issuer.url });
  await token();
  await token();
  assert.equal(issuer.received.length, 2);
});

test("all who want a token at once share one request", async (t) => {
  const issuer = await issuing(t);
  const token = clientCredentials({ ...client, tokenEndpoint: issuer.url });
  assert.deepEqual(await Promise.all([token(), token(), token()]), ["token-1", "token-1", "token-1"]);
  assert.equal(issuer.received.length, 1);
});

test("a refusal is told, and is not the last word", async (t) => {
  let refuse = true;
  const issuer = await listen(t, (response) =>
    refuse
      ? json(response, 401, { error: "invalid_client", error_description: "the secret is wrong" })
      : json(response, 200, { access_token: "token", token_type: "Bearer", expires_in: 300 }),
  );
  const token = clientCredentials({ ...client, tokenEndpoint: issuer.url });
  await assert.rejects(token(), (error: Error) => {
    assert.match(error.message, /127\.0\.0\.1.* 401: invalid_client: the secret is wrong$/);
    assert.doesNotMatch(error.message, /a secret/);
    return true;
  });
  refuse = false;
  assert.equal(await token(), "token");
});

for (const [what, status, body] of [
  ["nothing", 200, null],
  ["no token", 200, { token_type: "Bearer" }],
  ["a token that does not fit into a header", 200, { access_token: "sec\nret", token_type: "Bearer" }],
  ["a token of another type", 200, { access_token: "secret", token_type: "DPoP" }],
  ["a token of no type", 200, { access_token: "secret" }],
  ["an error of another form", 500, ["secret"]],
] as const) {
  test(`an issuer that answers with ${what} is an error without the token`, async (t) => {
    const issuer = await listen(t, (response) => json(response, status, body));
    await assert.rejects(clientCredentials({ ...client, tokenEndpoint: issuer.url })(), (error: Error) => {
      assert.match(error.message, new RegExp(`the token endpoint, .* answers ${status}`));
      assert.doesNotMatch(error.message, /sec/);
      return true;
    });
  });
}

test("an issuer that is not there is named", async () => {
  const token = clientCredentials({ ...client, tokenEndpoint: "http://127.0.0.1:1/token" });
  await assert.rejects(token(), /no answer from the token endpoint, http:\/\/127\.0\.0\.1:1\/token/);
});

test("the secret goes to the token endpoint alone", async (t) => {
  const elsewhere = await issuing(t);
  const issuer = await listen(t, (response) => response.writeHead(307, { Location: elsewhere.url }).end());
  await assert.rejects(clientCredentials({ ...client, tokenEndpoint: issuer.url })());
  assert.deepEqual(elsewhere.received, []);
});

test("the token goes with every request", async (t) => {
  const api = await listen(t, (response) => json(response, 200, { message: "Hello" }));
  let asked = 0;
  const get = getter({ baseUrl: api.url, token: async () => `token-${++asked}` });
  assert.deepEqual((await get("/greeting")).data, { message: "Hello" });
  await get("/greeting");
  assert.deepEqual(api.received.map((r) => r.authorization), ["Bearer token-1", "Bearer token-2"]);
});

test("the token goes to the API alone", async (t) => {
  const elsewhere = await listen(t, (response) => json(response, 200, {}));
  const api = await listen(t, (response) => response.writeHead(307, { Location: elsewhere.url }).end());
  const get = getter({ baseUrl: api.url, token: async () => "token" });
  await get("/greeting", { baseUrl: elsewhere.url });
  await get("/greeting");
  assert.deepEqual(elsewhere.received.map((r) => r.authorization), [undefined, undefined]);
  assert.deepEqual(api.received.map((r) => r.authorization), ["Bearer token"]);
});

test("without a source there is no token", async (t) => {
  const api = await listen(t, (response) => json(response, 200, {}));
  await getter({ baseUrl: api.url })("/greeting");
  assert.deepEqual(api.received.map((r) => r.authorization), [undefined]);
});

test("nothing secret travels in the clear", () => {
  for (const url of ["http://issuer.example/token", "http://localhost.example/", "http://127.0.0.1.example/", "ftp://localhost/"]) {
    assert.throws(() => clientCredentials({ ...client, tokenEndpoint: url }), /expected https/, url);
    assert.throws(() => createAPIClient({ baseUrl: url, token: async () => "token" }), /expected https/, url);
  }
  for (const url of ["https://issuer.example/token", "http://localhost:3010/", "http://127.0.0.1:3010/", "http://[::1]:3010/"]) {
    clientCredentials({ ...client, tokenEndpoint: url });
    createAPIClient({ baseUrl: url, token: async () => "token" });
  }
  createAPIClient({ baseUrl: "http://api.example" }); // nothing secret is sent there
});
