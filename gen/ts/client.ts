// The client of the API: openapi-fetch, typed by schema.d.ts, with an access token on every request.
//
//   const api = createAPIClient({ baseUrl: "http://localhost:3010", token: clientCredentials({ … }) });
//   const { data, error } = await api.GET("/api/messages", { params: { query: { limit: 5 } } });

import createClient, { type Client, type ClientOptions, type Middleware } from "openapi-fetch";
import type { Credential } from "./credentials.ts";
import type { paths } from "./schema.d.ts";
import { secure, type TokenSource } from "./tokens.ts";

export { apiKey, basic, type Credential } from "./credentials.ts";
export { DPoPKey } from "./dpop.ts";
export { type Page, paginate } from "./pages.ts";
export { isProblem, type Problem, type ProblemType, problemTypes } from "./problems.ts";
export type { components, operations, paths } from "./schema.d.ts";
export { type ClientCredentials, clientCredentials, type TokenSource } from "./tokens.ts";

/** The options of openapi-fetch, and a source of tokens. Without one, requests have no token. */
export interface APIClientOptions extends ClientOptions {
  baseUrl: string;
  token?: TokenSource;
  /** Other credentials to send with each request: API keys, or a user name and a password. */
  secrets?: readonly Credential[];
  /**
   * The longest Retry-After of a 503, in milliseconds, after which a call is retried, once. Only safe
   * methods are retried (RFC 9110 §9.2.1). Default 0: no retries.
   */
  maxRetryAfter?: number;
}

export function createAPIClient({
  token,
  secrets = [],
  maxRetryAfter = 0,
  ...options
}: APIClientOptions): Client<paths> {
  const client = createClient<paths>(options);
  const secret = token !== undefined || secrets.length > 0;
  if (secret) {
    secure("baseUrl", options.baseUrl);
  }
  if (secret || maxRetryAfter > 0) {
    const fetch = options.fetch ?? globalThis.fetch;
    client.use(credentialsMiddleware(new URL(options.baseUrl).origin, token, secrets, maxRetryAfter, fetch));
  }
  return client;
}

/**
 * Adds the credentials to each request, and retries it once: with a new token if its token is refused,
 * or after the Retry-After of a 503.
 */
function credentialsMiddleware(
  origin: string,
  token: TokenSource | undefined,
  secrets: readonly Credential[],
  maxRetryAfter: number,
  fetch: (request: Request) => Promise<Response>,
): Middleware {
  const copies = new Map<string, Request>(); // by call, because a body can be sent only once

  async function authorize(plain: Request, fresh: boolean): Promise<Request> {
    const request = secrets.reduce((request, credential) => credential(request), plain);
    if (!token) {
      return request;
    }
    const value = await token({ fresh, signal: request.signal });
    request.headers.set("Authorization", `${token.dpop ? "DPoP" : "Bearer"} ${value}`);
    if (token.dpop) {
      request.headers.set("DPoP", await token.dpop.proof(request.method, request.url, value));
    }
    return request;
  }

  /** Returns the request to retry after this response, or undefined. */
  async function repeat(copy: Request, response: Response): Promise<Request | undefined> {
    const error = /error="(\w+)"/.exec(response.headers.get("WWW-Authenticate") ?? "")?.[1];
    if (token && response.status === 401 && (error === "invalid_token" || error === "use_dpop_nonce")) {
      return authorize(copy, error === "invalid_token");
    }
    const after = Number(response.headers.get("Retry-After") ?? Number.NaN) * 1000;
    const safe = ["GET", "HEAD", "OPTIONS"].includes(copy.method);
    if (maxRetryAfter > 0 && response.status === 503 && safe && after <= maxRetryAfter) {
      await sleep(after, copy.signal);
      return authorize(copy, false);
    }
    return undefined;
  }

  return {
    async onRequest({ request, id }) {
      // A call can have its own baseUrl, but the token is for the API only (RFC 6750 §5.3). After a redirect to
      // another origin, fetch removes the header.
      if (new URL(request.url).origin !== origin) {
        return request;
      }
      copies.set(id, request.clone());
      return authorize(request, false);
    },
    async onResponse({ id, response }) {
      const copy = copies.get(id);
      copies.delete(id);
      if (!copy) {
        return response;
      }
      token?.dpop?.observe(response, copy.url);
      const again = await repeat(copy, response);
      if (!again) {
        return response;
      }
      await response.body?.cancel();
      const repeated = await fetch(again);
      token?.dpop?.observe(repeated, again.url);
      return repeated;
    },
    onError({ id }) {
      copies.delete(id);
    },
  };
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", abort, { once: true });
  });
}
