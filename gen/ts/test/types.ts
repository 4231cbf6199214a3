// What the compiler accepts of a client, and what it refuses. Nothing here runs. A line that is no longer refused is an
// error of its own, "Unused '@ts-expect-error' directive": then schema.d.ts says less than openapi.yaml does.

import { type components, createAPIClient, type operations } from "../client.ts";

const api = createAPIClient({ baseUrl: "http://localhost:3010" });
const id = "019ad7c8-09b3-7204-bf92-a8cef806518f";

export async function paths() {
  await api.GET("/api/public");
  // @ts-expect-error no such path
  await api.GET("/api/publik");
  // @ts-expect-error no such method
  await api.DELETE("/api/public");
  // @ts-expect-error the template, not a path made of it
  await api.GET(`/api/messages/${id}`);
}

export async function parameters() {
  await api.GET("/api/messages", { params: { query: { limit: 5 } } });
  // @ts-expect-error a string is no number
  await api.GET("/api/messages", { params: { query: { limit: "5" } } });
  // @ts-expect-error no such parameter
  await api.GET("/api/messages", { params: { query: { limt: 5 } } });
  // @ts-expect-error this operation has none
  await api.GET("/api/public", { params: { query: { limit: 5 } } });

  await api.GET("/api/messages/{id}", { params: { path: { id } } });
  // @ts-expect-error the id is missing
  await api.GET("/api/messages/{id}");
  // @ts-expect-error the id has another name
  await api.GET("/api/messages/{id}", { params: { path: { ID: id } } });
  // @ts-expect-error the id has another type
  await api.GET("/api/messages/{id}", { params: { path: { id: 5 } } });

  await api.DELETE("/api/messages/{id}", { params: { path: { id }, header: { "If-Match": "*" } } });
  // @ts-expect-error an entity tag is a string
  await api.DELETE("/api/messages/{id}", { params: { path: { id }, header: { "If-Match": 1 } } });
  // @ts-expect-error no such header
  await api.DELETE("/api/messages/{id}", { params: { path: { id }, header: { "If-Mach": "*" } } });
}

export async function bodies() {
  await api.POST("/api/messages", { body: { text: "Hello" } });
  // @ts-expect-error the body is missing
  await api.POST("/api/messages");
  // @ts-expect-error the text is missing
  await api.POST("/api/messages", { body: {} });
  // @ts-expect-error the text has another type
  await api.POST("/api/messages", { body: { text: 5 } });
  // @ts-expect-error the body has another type
  await api.POST("/api/messages", { body: "Hello" });
  // @ts-expect-error there is no body here
  await api.GET("/api/messages", { body: { text: "Hello" } });
}

export async function answers() {
  const { data, error } = await api.POST("/api/messages", { body: { text: "Hello" } });
  if (data !== undefined) {
    const message: components["schemas"]["Message"] = data;
    // @ts-expect-error it has no such member
    message.title;
    // @ts-expect-error the author is an object
    const author: string = message.author;
    return author;
  }
  const problem: components["schemas"]["Problem"] = error;
  // @ts-expect-error the detail may be missing
  return problem.detail.length;
}

export async function unseen() {
  const { data } = await api.GET("/api/messages");
  // @ts-expect-error the answer may be a problem
  data.messages;
  // @ts-expect-error the last page has no next
  data?.next.length;
  // @ts-expect-error there may be no first message
  data?.messages[0].text;
}

export async function empty() {
  const { data } = await api.DELETE("/api/messages/{id}", { params: { path: { id }, header: { "If-Match": "*" } } });
  // @ts-expect-error 204 has no content
  data.text;
}

export type Created = operations["createMessage"]["responses"][201]["content"]["application/json"];
// @ts-expect-error no such status
export type NotCreated = operations["createMessage"]["responses"][200];
// @ts-expect-error no such media type
export type Text = operations["createMessage"]["responses"][201]["content"]["text/plain"];
// @ts-expect-error no such operation
export type Nobody = operations["nobody"];
// @ts-expect-error a problem has a status
export const statusless: components["schemas"]["Problem"] = { type: "about:blank", title: "Not Found" };
// @ts-expect-error what a client says of a message is its text alone
export const overfull: components["schemas"]["MessageText"] = { text: "Hello", author: "somebody else" };
