// The problem types of this API (RFC 9457). They are stable.

import type { components } from "./schema.d.ts";

/** A problem document. */
export type Problem = components["schemas"]["Problem"];

const base = "https://github.com/oasgate/oasgate/blob/main/authz/PROBLEMS.md#";
const own = "https://github.com/oasgate/oasgate/blob/main/impl/PROBLEMS.md#";

/** The type URI of each kind of problem. */
export const problemTypes = {
  missingToken: `${base}missing-token`,
  invalidRequest: `${base}invalid-request`,
  invalidToken: `${base}invalid-token`,
  insufficientScope: `${base}insufficient-scope`,
  insufficientUserAuthentication: `${base}insufficient-user-authentication`,
  invalidDPoPProof: `${base}invalid-dpop-proof`,
  useDPoPNonce: `${base}use-dpop-nonce`,
  keysUnavailable: `${base}keys-unavailable`,
  replaysUnavailable: `${base}replays-unavailable`,
  missingCredential: `${base}missing-credential`,
  invalidCredential: `${base}invalid-credential`,
  insufficientRole: `${base}insufficient-role`,
  crossOrigin: `${base}cross-origin`,
  denied: `${base}denied`,
  credentialsUnavailable: `${base}credentials-unavailable`,
  notFound: `${base}not-found`,
  methodNotAllowed: `${base}method-not-allowed`,
  invalidParameter: `${base}invalid-parameter`,
  invalidBody: `${base}invalid-body`,
  bodyTooLarge: `${base}body-too-large`,
  unsupportedMediaType: `${base}unsupported-media-type`,
  timeout: `${base}timeout`,
  unavailable: `${base}unavailable`,
  internal: `${base}internal`,
  preconditionFailed: `${own}precondition-failed`,
  idempotencyKeyReused: `${own}idempotency-key-reused`,
} as const;

export type ProblemType = (typeof problemTypes)[keyof typeof problemTypes];

/** Reports whether the error of a call is a problem document, of the given type if there is one. */
export function isProblem(error: unknown, type?: ProblemType): error is Problem {
  if (typeof error !== "object" || error === null) {
    return false;
  }
  const { type: given, status } = error as Record<string, unknown>;
  return typeof given === "string" && typeof status === "number" && (type === undefined || given === type);
}
