// What a program does with the API, against a running `dev`, whose URL is OASGATE_TEST_URL.

import assert from "node:assert/strict";
import { test } from "node:test";
import { clientCredentials, type components, createAPIClient } from "../client.ts";

const baseUrl = process.env["OASGATE_TEST_URL"] ?? "";
const skip = baseUrl ? false : "OASGATE_TEST_URL is not set: start dev, and say http://localhost:3010";

/** The API as one of dev's clients sees it. */
function as(clientID: "full" | "none", scopes?: string[]) {
  return createAPIClient({
    baseUrl,
    token: clientCredentials({
      tokenEndpoint: `${baseUrl}/oauth/token`,
      clientID,
      clientSecret: "for-development-only",
      audience: "https://quickstarts/api",
      ...(scopes && { scopes }),
    }),
  });
}

/** Checks that an answer is a problem of one kind, in its type and in its status. */
function refused(answer: { error?: components["schemas"]["Problem"]; response: Response }, status: number, kind: string) {
  const { error, response } = answer;
  assert.equal(response.status, status);
  assert.equal(response.headers.get("Content-Type"), "application/problem+json");
  assert.equal(error?.status, status);
  assert.match(error.type, new RegExp(`${kind}$`));
  return response.headers.get("WWW-Authenticate");
}

test("without a token", { skip }, async () => {
  const api = createAPIClient({ baseUrl });
  assert.match((await api.GET("/api/public")).data?.message ?? "", /^Hello/);
  const challenge = refused(await api.GET("/api/private-scoped"), 401, "#missing-token");
  assert.match(challenge ?? "", /^Bearer realm=/);
  assert.doesNotMatch(challenge ?? "", /error=/);
});

test("with a token that lacks the scope", { skip }, async () => {
  const api = as("none");
  assert.match((await api.GET("/api/private")).data?.message ?? "", /^Hello/);
  const challenge = refused(await api.GET("/api/private-scoped"), 403, "#insufficient-scope");
  assert.match(challenge ?? "", /error="insufficient_scope".* scope="read:messages"/);
});

test("with a token that was asked for less than the client may have", { skip }, async () => {
  const api = as("full", ["read:messages"]);
  assert.match((await api.GET("/api/private-scoped")).data?.message ?? "", /^Hello/);
  const challenge = refused(await api.POST("/api/messages", { body: { text: "Hello" } }), 403, "#insufficient-scope");
  assert.match(challenge ?? "", /scope="write:messages"/);
});

test("a message from its beginning to its end", { skip }, async () => {
  const api = as("full");
  const text = "Grüße & \"quotes\" – 🙂";

  const created = await api.POST("/api/messages", { body: { text } });
  assert.equal(created.response.status, 201);
  assert.ok(created.data);
  const { id } = created.data;
  assert.deepEqual(created.data, { id, text, author: { issuer: `${baseUrl}/`, subject: "full@clients" }, created: created.data.created });
  assert.equal(created.response.headers.get("Location"), `/api/messages/${id}`);
  const first = created.response.headers.get("ETag") ?? "";

  const listed = await api.GET("/api/messages", { params: { query: { limit: 100 } } });
  assert.deepEqual(listed.data?.messages.filter((message) => message.id === id), [created.data]);

  const got = await api.GET("/api/messages/{id}", { params: { path: { id } } });
  assert.deepEqual(got.data, created.data);
  const unchanged = await api.GET("/api/messages/{id}", { params: { path: { id }, header: { "If-None-Match": first } } });
  assert.equal(unchanged.response.status, 304);

  const replace = (header: { "If-Match": string }) =>
    api.PUT("/api/messages/{id}", { params: { path: { id }, header }, body: { text: "Bye" } });
  const replaced = await replace({ "If-Match": first });
  assert.deepEqual(replaced.data, { ...created.data, text: "Bye" });
  refused(await replace({ "If-Match": first }), 412, "#precondition-failed");

  const second = replaced.response.headers.get("ETag") ?? "";
  assert.notEqual(second, first);
  const deleted = await api.DELETE("/api/messages/{id}", { params: { path: { id }, header: { "If-Match": second } } });
  assert.equal(deleted.response.status, 204);
  refused(await api.GET("/api/messages/{id}", { params: { path: { id } } }), 404, "#not-found");
});

test("with a body that the document does not describe", { skip }, async () => {
  refused(await as("full").POST("/api/messages", { body: { text: "" } }), 400, "#invalid-body");
});

test("with a wrong secret", { skip }, async () => {
  const token = clientCredentials({
    tokenEndpoint: `${baseUrl}/oauth/token`,
    clientID: "full",
    clientSecret: "not-the-secret",
    audience: "https://quickstarts/api",
  });
  await assert.rejects(createAPIClient({ baseUrl, token }).GET("/api/private"), (error: Error) => {
    assert.match(error.message, /400: invalid_client/);
    assert.doesNotMatch(error.message, /not-the-secret/);
    return true;
  });
});
