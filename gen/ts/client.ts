// The API's client: openapi-fetch, typed by schema.d.ts, with the access token on every request.
//
//   const api = createAPIClient({ baseUrl: "http://localhost:3010", token: clientCredentials({ … }) });
//   const { data, error } = await api.GET("/api/messages", { params: { query: { limit: 5 } } });

import createClient, { type Client, type ClientOptions } from "openapi-fetch";
import type { paths } from "./schema.d.ts";

export type { components, operations, paths } from "./schema.d.ts";

/** Gives an access token that is good for some time yet. It is asked before each request, so it keeps what it has. */
export type TokenSource = () => Promise<string>;

/** The options of openapi-fetch, and where tokens come from. Without a source no request has a token. */
export interface APIClientOptions extends ClientOptions {
  baseUrl: string;
  token?: TokenSource;
}

export function createAPIClient({ token, ...options }: APIClientOptions): Client<paths> {
  const client = createClient<paths>(options);
  if (!token) {
    return client;
  }
  const { origin } = secure("baseUrl", options.baseUrl);
  client.use({
    async onRequest({ request }) {
      // A single call can name another baseUrl, but the token is for the API alone (RFC 6750 §5.3). Where a redirect
      // leads to another origin, fetch itself takes the header off.
      if (new URL(request.url).origin === origin) {
        request.headers.set("Authorization", `Bearer ${await token()}`);
      }
      return request;
    },
  });
  return client;
}

export interface ClientCredentials {
  /** The issuer's token endpoint, such as http://localhost:3010/oauth/token under `dev`. */
  tokenEndpoint: string;
  clientID: string;
  clientSecret: string;
  audience?: string;
  /** What to ask for. Default: all that the client may have. */
  scopes?: readonly string[];
  fetch?: typeof globalThis.fetch;
  /** The time in milliseconds. Default: Date.now. */
  now?: () => number;
}

/**
 * The tokens of a program that acts for itself (RFC 6749 §4.4). It has a secret, so it is nothing for a browser.
 * A token is kept until 30 seconds before it expires; all who want the next one wait for the same request.
 */
export function clientCredentials(config: ClientCredentials): TokenSource {
  const { fetch = globalThis.fetch, now = Date.now } = config;
  const endpoint = secure("tokenEndpoint", config.tokenEndpoint);
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: config.clientID,
    client_secret: config.clientSecret,
  });
  if (config.audience !== undefined) {
    form.set("audience", config.audience);
  }
  if (config.scopes !== undefined) {
    form.set("scope", config.scopes.join(" "));
  }

  let kept = "";
  let until = 0;
  let asking: Promise<string> | undefined;

  async function ask(): Promise<string> {
    const asked = now();
    const response = await fetch(endpoint, {
      method: "POST",
      body: form,
      redirect: "error", // 307 and 308 would have the secret sent elsewhere
      signal: AbortSignal.timeout(10_000),
    }).catch((cause: unknown) => {
      throw new Error(`no answer from the token endpoint, ${endpoint}`, { cause });
    });
    const answer: unknown = await response.json().catch(() => undefined);
    const { access_token, token_type, expires_in, error, error_description } = (answer ?? {}) as Record<string, unknown>;
    if (!response.ok) {
      throw new Error(`the token endpoint, ${endpoint}, answers ${[response.status, error, error_description].filter(Boolean).join(": ")}`);
    }
    // Another type than Bearer is for clients that understand it (RFC 6749 §7.1). What does not fit into a header is
    // refused here, where the error does not quote it (RFC 6750 §2.1).
    if (!/^bearer$/i.test(String(token_type)) || typeof access_token !== "string" || !/^[\w.~+/-]+=*$/.test(access_token)) {
      throw new Error(`the token endpoint, ${endpoint}, answers ${response.status}, but not with a bearer token`);
    }
    kept = access_token;
    until = typeof expires_in === "number" ? asked + (expires_in - 30) * 1000 : 0;
    return kept;
  }

  return async () => {
    if (now() < until) {
      return kept;
    }
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    return asking;
  };
}

/** Tokens and secrets do not travel in the clear (RFC 6750 §5.3), unless within this machine. */
function secure(name: string, value: string): URL {
  const url = new URL(value);
  const loopback = url.protocol === "http:" && ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !loopback) {
    throw new Error(`${name} is ${value}: expected https, or http to localhost, for what is sent there is secret`);
  }
  return url;
}
