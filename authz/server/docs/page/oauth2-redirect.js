// The issuer redirects the browser here (RFC 6749 §4.1.2). This script passes the response to the
// page that opened it.
"use strict";

(() => {
  const answer = new URLSearchParams(location.search);
  history.replaceState(null, "", location.pathname); // removes the code from the history
  const asked = window.opener && window.opener.docsSignIn;
  if (!asked) {
    document.getElementById("outcome").textContent = "The page that started this sign-in is gone. Close this window, and authorize again.";
    return;
  }
  delete window.opener.docsSignIn; // accept one response only
  if (!asked.state || answer.get("state") !== asked.state) { // RFC 6749 §10.12
    asked.fail("The answer does not belong to this sign-in: its state differs. Authorize again.");
  } else if (answer.get("iss") !== null && answer.get("iss") !== asked.issuer) { // RFC 9207 §2.4
    asked.fail("The answer is from another issuer. Authorize again.");
  } else if (answer.get("code")) {
    asked.redeem(answer.get("code"));
  } else {
    asked.fail(["The issuer refuses", answer.get("error") || "without a reason", answer.get("error_description")].filter(Boolean).join(": "));
  }
  window.close();
})();
