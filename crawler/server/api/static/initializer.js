// Relative to the page, so that it is found under any prefix. No validator: that would be another server.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "openapi.json",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
