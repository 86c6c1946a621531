# One server on one machine: everything on disk, sealed; TLS; an audit file.
#
#   leasehold server -config=leasehold.hcl
#   leasehold operator init          # prints the key shares and the first root token, once
#   leasehold operator unseal        # three times, with three shares
#
# SIGHUP reads the certificate and the log level again and reopens the audit file; SIGTERM finishes what is under way.

storage "sqlite" {
  path = "/var/lib/leasehold/leasehold.db"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/etc/leasehold/tls/server.crt"
  tls_key_file  = "/etc/leasehold/tls/server.key"
}

# Where clients reach it.
api_addr = "https://leasehold.example.com:8200"

# A lease or token that asks for nothing gets the first; none gets more than the second.
default_lease_ttl = "1h"
max_lease_ttl     = "24h"

log_level  = "info"
log_format = "json"

# Declared here, this device cannot be switched off over the API. While any device is enabled, no answer leaves before one has written it.
audit "file" "main" {
  options = {
    file_path = "/var/log/leasehold/audit.log"
  }
}

# Files that `leasehold audit enable file file_path=…` names must lie below this directory.
audit_directory = "/var/log/leasehold"
