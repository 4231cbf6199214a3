// Sources of access tokens.

import { DPoPKey } from "./dpop.ts";

/**
 * Returns a valid access token. It is called before each request, so it should cache the token. `fresh`
 * requests a new one, because the last one was refused.
 */
export interface TokenSource {
  (options?: { fresh?: boolean; signal?: AbortSignal }): Promise<string>;
  /** The key that the tokens are bound to (RFC 9449), or undefined for bearer tokens. */
  readonly dpop?: DPoPKey | undefined;
}

export interface ClientCredentials {
  /** The issuer's token endpoint, such as http://localhost:3010/oauth/token under `dev`. */
  tokenEndpoint: string;
  clientID: string;
  clientSecret: string;
  audience?: string;
  /** The scopes to request. Default: all scopes of the client. */
  scopes?: readonly string[];
  /** Binds the tokens to a key of this client, made with DPoPKey.generate() (RFC 9449). */
  dpop?: DPoPKey;
  fetch?: typeof globalThis.fetch;
  /** Returns the time in milliseconds. Default: Date.now. */
  now?: () => number;
}

/**
 * Returns a source that uses the client credentials grant (RFC 6749 §4.4). It needs a secret, so it is
 * not for browsers. It keeps a token until 30 seconds before it expires; concurrent callers share one
 * request.
 */
export function clientCredentials(config: ClientCredentials): TokenSource {
  const { fetch = globalThis.fetch, now = Date.now, dpop } = config;
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

  let token = "";
  let until = 0;
  let request: Promise<string> | undefined;

  async function post(): Promise<Response> {
    const headers: Record<string, string> = dpop ? { DPoP: await dpop.proof("POST", endpoint.href) } : {};
    const response = await fetch(endpoint, {
      method: "POST",
      headers,
      body: form,
      redirect: "error", // 307 and 308 would send the secret elsewhere
      signal: AbortSignal.timeout(10_000),
    }).catch((cause: unknown) => {
      throw new Error(`no answer from the token endpoint, ${endpoint}`, { cause });
    });
    dpop?.observe(response, endpoint.href);
    return response;
  }

  async function get(): Promise<string> {
    const requested = now();
    let response = await post();
    let answer: unknown = await response.json().catch(() => undefined);
    if (dpop && response.status === 400 && (answer as { error?: unknown } | undefined)?.error === "use_dpop_nonce") {
      response = await post(); // with the nonce of the first response (RFC 9449 §8)
      answer = await response.json().catch(() => undefined);
    }
    const { access_token, token_type, expires_in, error, error_description } = (answer ?? {}) as Record<string, unknown>;
    if (!response.ok) {
      throw new Error(`the token endpoint, ${endpoint}, answers ${[response.status, error, error_description].filter(Boolean).join(": ")}`);
    }
    // A client must not use a token of an unknown type (RFC 6749 §7.1). A token with characters that are invalid
    // in a header is rejected here, because the error of fetch would contain it (RFC 6750 §2.1).
    const expected = dpop ? /^dpop$/i : /^bearer$/i;
    if (!expected.test(String(token_type)) || typeof access_token !== "string" || !/^[\w.~+/-]+=*$/.test(access_token)) {
      throw new Error(`the token endpoint, ${endpoint}, answers ${response.status}, but not with a ${dpop ? "DPoP" : "bearer"} token`);
    }
    token = access_token;
    until = typeof expires_in === "number" ? requested + (expires_in - 30) * 1000 : 0;
    return token;
  }

  const source = async ({ fresh = false }: { fresh?: boolean } = {}) => {
    if (!fresh && now() < until) {
      return token;
    }
    request ??= get().finally(() => {
      request = undefined;
    });
    return request;
  };
  return Object.assign(source, { dpop });
}

/** Parses a URL for tokens or secrets, which must be https, or http to a loopback host (RFC 6750 §5.3). */
export function secure(name: string, value: string): URL {
  const url = new URL(value);
  const loopback = url.protocol === "http:" && ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !loopback) {
    throw new Error(`${name} is ${value}: expected https, or http to localhost, because secrets are sent there`);
  }
  return url;
}
