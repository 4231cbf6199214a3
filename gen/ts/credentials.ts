// Credentials of security schemes that do not take access tokens.

/** Adds a credential to a request. */
export type Credential = (request: Request) => Request;

/** An API key in a header, the query or a cookie, as the security scheme says. Browsers ignore the cookie. */
export function apiKey(where: "header" | "query" | "cookie", name: string, key: string): Credential {
  return (request) => {
    if (where === "query") {
      const url = new URL(request.url);
      url.searchParams.set(name, key);
      return new Request(url, request);
    }
    if (where === "header") {
      request.headers.set(name, key);
      return request;
    }
    const before = request.headers.get("Cookie");
    request.headers.set("Cookie", `${before ? `${before}; ` : ""}${name}=${key}`);
    return request;
  };
}

/** A user name and a password (RFC 7617). */
export function basic(user: string, password: string): Credential {
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  const value = `Basic ${btoa(String.fromCharCode(...bytes))}`;
  return (request) => {
    request.headers.set("Authorization", value);
    return request;
  };
}
