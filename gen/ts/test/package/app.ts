// Compiled against the packed client in a project of its own, under each way in which TypeScript
// resolves modules, and run against a `dev`, whose URL is OASGATE_TEST_URL.

import { clientCredentials, type components, createAPIClient, DPoPKey, isProblem, paginate, problemTypes } from "@oasgate/client";

declare const process: { env: Record<string, string | undefined> };

const baseUrl = process.env["OASGATE_TEST_URL"] ?? "http://localhost:3010";
const token = clientCredentials({
  tokenEndpoint: `${baseUrl}/oauth/token`,
  clientID: "full",
  clientSecret: "for-development-only",
  audience: "https://quickstarts/api",
  dpop: await DPoPKey.generate(),
});
const api = createAPIClient({ baseUrl, token });

// @ts-expect-error a token source returns a promise
const text: string = token();
void text;

const created = await api.POST("/api/messages", { body: { text: "Hello" } });
if (created.error) {
  throw new Error(created.error.title);
}
const found: components["schemas"]["Message"][] = [];
for await (const message of paginate(async (cursor) => {
  const { data, error } = await api.GET("/api/messages", { params: { query: { limit: 1, ...(cursor && { cursor }) } } });
  if (error) {
    throw new Error(error.title);
  }
  return { items: data.messages, next: data.next };
})) {
  found.push(message);
}
const missing = await api.GET("/api/messages/{id}", { params: { path: { id: "019ad7c8-09b3-7204-bf92-a8cef806518f" } } });
// @ts-expect-error no such path
void (() => api.GET("/nope"));

if (!found.some(({ id }) => id === created.data.id) || !isProblem(missing.error, problemTypes.notFound)) {
  throw new Error(`unexpected: ${JSON.stringify({ found, missing: missing.error })}`);
}
console.log("the packed client works");
