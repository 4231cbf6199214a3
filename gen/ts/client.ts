// The API's client: openapi-fetch, typed by schema.d.ts, with the access token on every request.
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

/** The options of openapi-fetch, and where tokens come from. Without a source, requests carry no token. */
export interface APIClientOptions extends ClientOptions {
  baseUrl: string;
  token?: TokenSource;
  /** Other credentials to send with each request: API keys, or a user name and a password. */
  secrets?: readonly Credential[];
  /**
   * The longest time in milliseconds to wait and try again after a 503 whose Retry-After asks for no
   * more than that, once per call. Only methods that are safe to repeat are tried again (RFC 9110
   * §9.2.2). Default 0: the caller gets the 503.
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
    client.use(sending(new URL(options.baseUrl).origin, token, secrets, maxRetryAfter, fetch));
  }
  return client;
}

/**
 * Adds the credentials to each request, and repeats a request once: with a new token if its token is
 * refused, or after the time that a 503 asks for.
 */
function sending(
  origin: string,
  token: TokenSource | undefined,
  secrets: readonly Credential[],
  maxRetryAfter: number,
  fetch: (request: Request) => Promise<Response>,
): Middleware {
  const copies = new Map<string, Request>(); // by call: the body of a request can be sent once

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

  /** Returns the request to send in place of the one that got this response, or undefined. */
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
      // A single call can name another baseUrl, but the token is for the API alone (RFC 6750 §5.3). After a redirect
      // to another origin, fetch itself removes the header.
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
