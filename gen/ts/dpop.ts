// Proofs of possession (DPoP, RFC 9449), with the Web Crypto API of Node and of browsers.

/** A key that access tokens are bound to. It never leaves the process: the private part cannot be exported. */
export class DPoPKey {
  readonly #key: CryptoKeyPair;
  readonly #jwk: { crv: string; kty: string; x: string; y: string };
  readonly #nonces = new Map<string, string>(); // by origin (RFC 9449 §8.2)

  private constructor(key: CryptoKeyPair, jwk: JsonWebKey) {
    const { crv = "", kty = "", x = "", y = "" } = jwk;
    this.#key = key;
    this.#jwk = { crv, kty, x, y };
  }

  /** Generates a key for ES256. */
  static async generate(): Promise<DPoPKey> {
    const key = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
    return new DPoPKey(key, await crypto.subtle.exportKey("jwk", key.publicKey));
  }

  /** Returns a proof for one request (RFC 9449 §4.2), bound to its access token if it has one. */
  async proof(method: string, url: string, accessToken?: string): Promise<string> {
    const { origin, pathname } = new URL(url);
    const nonce = this.#nonces.get(origin);
    const claims = {
      jti: crypto.randomUUID(),
      htm: method,
      htu: origin + pathname,
      iat: Math.floor(Date.now() / 1000),
      ...(accessToken !== undefined && { ath: base64url(await crypto.subtle.digest("SHA-256", bytes(accessToken))) }),
      ...(nonce !== undefined && { nonce }),
    };
    const header = { typ: "dpop+jwt", alg: "ES256", jwk: this.#jwk };
    const signed = `${base64url(bytes(JSON.stringify(header)))}.${base64url(bytes(JSON.stringify(claims)))}`;
    const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, this.#key.privateKey, bytes(signed));
    return `${signed}.${base64url(signature)}`;
  }

  /** Stores the nonce of a response for the next proof to the same origin. */
  observe(response: Response, url: string): void {
    const nonce = response.headers.get("DPoP-Nonce");
    if (nonce !== null) {
      this.#nonces.set(new URL(url).origin, nonce);
    }
  }
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function base64url(data: ArrayBuffer | Uint8Array): string {
  const binary = Array.from(new Uint8Array(data), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
