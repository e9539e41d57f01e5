"""What schemathesis has to be told of bodies that are neither JSON nor plain text: they are sent as they are."""

import schemathesis

schemathesis.serializer.alias(["application/x-ndjson", "text/csv"], "text/plain")
