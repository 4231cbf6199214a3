// How a request is sent, and repeated: against servers that record what reached them.

import assert from "node:assert/strict";
import { createHash, createPublicKey, type JsonWebKey, verify } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { apiKey, type APIClientOptions, basic, clientCredentials, createAPIClient, DPoPKey, isProblem, paginate, problemTypes } from "../client.ts";

interface Received {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  body: string;
}

type Answer = [status: number, headers: Record<string, string>, body: unknown];

/** Starts a server that gives the answers in turn, the last one again and again. */
async function serve(t: TestContext, ...answers: Answer[]) {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) {
      body += chunk;
    }
    received.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
    const [status, headers, answer] = answers[Math.min(received.length, answers.length) - 1] as Answer;
    response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(answer));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}

/** A client's calls of paths that no document need have. */
function calls(options: APIClientOptions) {
  const { GET, POST } = createAPIClient(options);
  type Call = (path: string, init?: { body?: unknown; signal?: AbortSignal }) => Promise<{ data?: unknown; error?: unknown; response: Response }>;
  return { get: GET as unknown as Call, post: POST as unknown as Call };
}

const invalid: Answer = [401, { "WWW-Authenticate": 'Bearer realm="api", error="invalid_token"' }, {}];
const unavailable: Answer = [503, { "Retry-After": "0" }, {}];
const ok: Answer = [200, {}, { message: "Hello" }];

function counting() {
  let n = 0;
  const asked: boolean[] = [];
  const token = async ({ fresh = false } = {}) => {
    asked.push(fresh);
    return `token-${++n}`;
  };
  return { token, asked };
}

test("a request whose token is refused is sent again with a new one, body included", async (t) => {
  const api = await serve(t, invalid, ok);
  const { token, asked } = counting();
  const { data } = await calls({ baseUrl: api.url, token }).post("/messages", { body: { text: "Hello" } });
  assert.deepEqual(data, { message: "Hello" });
  assert.deepEqual(asked, [false, true]);
  assert.deepEqual(api.received.map((r) => r.headers.authorization), ["Bearer token-1", "Bearer token-2"]);
  assert.deepEqual(api.received.map((r) => r.body), ['{"text":"Hello"}', '{"text":"Hello"}']);
});

test("a request is sent again once", async (t) => {
  const api = await serve(t, invalid);
  const { response } = await calls({ baseUrl: api.url, token: counting().token }).get("/greeting");
  assert.equal(response.status, 401);
  assert.equal(api.received.length, 2);
});

for (const [what, answer] of [
  ["a missing token", [401, { "WWW-Authenticate": 'Bearer realm="api"' }, {}]],
  ["a missing scope", [403, { "WWW-Authenticate": 'Bearer realm="api", error="insufficient_scope"' }, {}]],
  ["a 503 that nobody asked to repeat", unavailable],
] as [string, Answer][]) {
  test(`${what} is not a reason to send again`, async (t) => {
    const api = await serve(t, answer);
    await calls({ baseUrl: api.url, token: counting().token }).get("/greeting");
    assert.equal(api.received.length, 1);
  });
}

test("Retry-After is honoured up to a limit, for safe methods", async (t) => {
  const { token } = counting();
  const api = await serve(t, unavailable, ok);
  assert.equal((await calls({ baseUrl: api.url, token, maxRetryAfter: 1000 }).get("/greeting")).response.status, 200);
  const later = await serve(t, [503, { "Retry-After": "5" }, {}], ok);
  assert.equal((await calls({ baseUrl: later.url, token, maxRetryAfter: 1000 }).get("/greeting")).response.status, 503);
  const unsafe = await serve(t, unavailable, ok);
  assert.equal((await calls({ baseUrl: unsafe.url, token, maxRetryAfter: 1000 }).post("/messages", { body: {} })).response.status, 503);
});

test("a wait can be aborted", async (t) => {
  const api = await serve(t, [503, { "Retry-After": "3600" }, {}]);
  const abort = new AbortController();
  const call = calls({ baseUrl: api.url, maxRetryAfter: 1e9 }).get("/greeting", { signal: abort.signal });
  while (api.received.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  abort.abort();
  await assert.rejects(call, { name: "AbortError" });
});

function decode(proof: string) {
  const [header = "", claims = "", signature = ""] = proof.split(".");
  const { jwk, alg, typ } = JSON.parse(Buffer.from(header, "base64url").toString()) as { jwk: JsonWebKey; alg: string; typ: string };
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const genuine = verify("sha256", Buffer.from(`${header}.${claims}`), { key, dsaEncoding: "ieee-p1363" }, Buffer.from(signature, "base64url"));
  return { jwk, alg, typ, genuine, claims: JSON.parse(Buffer.from(claims, "base64url").toString()) as Record<string, unknown> };
}

test("with a DPoP key, each request carries a proof, and nonces are followed", async (t) => {
  const issuer = await serve(t, [400, { "DPoP-Nonce": "issuer-1" }, { error: "use_dpop_nonce" }], [200, {}, { access_token: "bound", token_type: "DPoP", expires_in: 300 }]);
  const api = await serve(t, [401, { "WWW-Authenticate": 'DPoP realm="api", error="use_dpop_nonce"', "DPoP-Nonce": "api-1" }, {}], ok);
  const token = clientCredentials({ tokenEndpoint: `${issuer.url}/token`, clientID: "me", clientSecret: "secret", dpop: await DPoPKey.generate() });
  const { data } = await calls({ baseUrl: api.url, token }).get("/greeting");
  assert.deepEqual(data, { message: "Hello" });
  assert.equal(issuer.received.length, 2);
  const ath = createHash("sha256").update("bound").digest("base64url");
  const proofs = [...issuer.received, ...api.received].map((r) => decode(String(r.headers["dpop"])));
  for (const [i, [htm, htu, hash, nonce]] of [
    ["POST", `${issuer.url}/token`, undefined, undefined],
    ["POST", `${issuer.url}/token`, undefined, "issuer-1"],
    ["GET", `${api.url}/greeting`, ath, undefined],
    ["GET", `${api.url}/greeting`, ath, "api-1"],
  ].entries()) {
    const proof = proofs[i];
    assert.ok(proof?.genuine, `proof ${i} has a bad signature`);
    assert.equal(proof.typ, "dpop+jwt");
    assert.ok(!("d" in proof.jwk), "the private key is in the proof");
    const { htm: m, htu: u, ath: a, nonce: n } = proof.claims;
    assert.deepEqual([m, u, a, n], [htm, htu, hash, nonce], `proof ${i}`);
  }
  assert.equal(new Set(proofs.map((p) => p.claims["jti"])).size, 4);
  assert.deepEqual(api.received.map((r) => r.headers.authorization), ["DPoP bound", "DPoP bound"]);
});

test("a bearer token where a DPoP token was asked for is refused", async (t) => {
  const issuer = await serve(t, [200, {}, { access_token: "secret", token_type: "Bearer" }]);
  const token = clientCredentials({ tokenEndpoint: issuer.url, clientID: "me", clientSecret: "s", dpop: await DPoPKey.generate() });
  await assert.rejects(token(), /not with a DPoP token/);
});

test("pagination follows the cursors to the end", async () => {
  const pages: Record<string, { items: number[]; next?: string }> = { "": { items: [1, 2], next: "a" }, a: { items: [], next: "b" }, b: { items: [3] } };
  const all: number[] = [];
  for await (const item of paginate(async (cursor = "") => pages[cursor] ?? { items: [] })) {
    all.push(item);
  }
  assert.deepEqual(all, [1, 2, 3]);
  await assert.rejects(async () => {
    for await (const _ of paginate(async () => ({ items: [1], next: "again" }))) {
      // the second page names itself
    }
  }, /names itself/);
});

test("problems are told apart by their types", () => {
  const problem = { type: problemTypes.notFound, title: "There is no such resource", status: 404 };
  assert.ok(isProblem(problem));
  assert.ok(isProblem(problem, problemTypes.notFound));
  for (const other of [null, "text", {}, { type: problemTypes.notFound }, { ...problem, type: problemTypes.invalidBody }]) {
    assert.ok(!isProblem(other, problemTypes.notFound));
  }
});

test("credentials are where their schemes say, and each once when a request is sent again", async (t) => {
  const api = await serve(t, invalid, ok);
  const { token } = counting();
  const secrets = [apiKey("header", "X-Key", "a"), apiKey("query", "key", "b&c"), apiKey("cookie", "sid", "d")];
  await calls({ baseUrl: api.url, token, secrets }).post("/messages", { body: { text: "Hello" } });
  for (const request of api.received) {
    assert.equal(request.url, "/messages?key=b%26c");
    assert.equal(request.headers["x-key"], "a");
    assert.equal(request.headers.cookie, "sid=d");
    assert.equal(request.body, '{"text":"Hello"}');
  }
  assert.equal(api.received.length, 2);
});

test("a user name and a password are sent as HTTP Basic, and to the API alone", async (t) => {
  const api = await serve(t, ok);
  await calls({ baseUrl: api.url, secrets: [basic("zoë", "p:w")] }).get("/messages");
  assert.equal(api.received[0]?.headers.authorization, `Basic ${Buffer.from("zoë:p:w").toString("base64")}`);
  assert.throws(() => createAPIClient({ baseUrl: "http://api.example", secrets: [basic("a", "b")] }), /expected https/);
});
