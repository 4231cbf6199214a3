// Compiled against the packed client in a project of its own, under each way in which TypeScript resolves modules.

import { createAPIClient, clientCredentials, isProblem, problemTypes, DPoPKey, paginate, type components } from "@oasgate/client";
const api = createAPIClient({ baseUrl: "http://localhost:3010", token: clientCredentials({ tokenEndpoint: "http://localhost:3010/oauth/token", clientID: "a", clientSecret: "b" }) });
export async function f(): Promise<components["schemas"]["Message"][]> {
  const { data, error } = await api.GET("/api/messages", { params: { query: { limit: 5 } } });
  // @ts-expect-error no such path
  await api.GET("/nope");
  if (isProblem(error, problemTypes.notFound)) throw new Error(error.title);
  void DPoPKey; void paginate;
  return data?.messages ?? [];
}
const token = clientCredentials({ tokenEndpoint: "http://localhost:3010/oauth/token", clientID: "a", clientSecret: "b" });
// @ts-expect-error a token source returns a promise
const t: string = token();
console.log(typeof f, typeof t);
