// The issuer sends the browser back here with its answer (RFC 6749 §4.1.2), which goes to the page that asked.
"use strict";

(() => {
  const answer = new URLSearchParams(location.search);
  history.replaceState(null, "", location.pathname); // the code is of no further use in a history
  const outcome = (text) => { document.getElementById("outcome").textContent = text; };

  const asked = window.opener && window.opener.swaggerUIRedirectOauth2;
  if (!asked) {
    outcome("Nobody asked for this sign-in, or the page that did is gone. Close this window, and authorize again.");
    return;
  }
  const fail = (message) => {
    asked.errCb({ authId: asked.auth.name, source: "auth", level: "error", message });
  };
  // Another page's answer is not ours (RFC 6749 §10.12).
  if (!asked.state || answer.get("state") !== asked.state) {
    fail("The answer is not to what was asked: its state differs. Authorize again.");
  } else if (answer.get("iss") !== null && answer.get("iss") !== asked.issuer) { // RFC 9207 §2.4
    fail("The answer is another issuer's. Authorize again.");
  } else if (answer.get("code")) {
    asked.auth.code = answer.get("code");
    asked.callback({ auth: asked.auth, redirectUrl: asked.redirectUrl });
  } else {
    fail(["The issuer refuses", answer.get("error") || "without saying why", answer.get("error_description")].filter(Boolean).join(": "));
  }
  asked.state = ""; // an answer counts once
  window.close();
})();
