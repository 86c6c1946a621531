# To try a durable server on one's own machine: no TLS, so it listens on the loopback address only.
#
#   leasehold server -config=loopback.hcl

storage "sqlite" {
  path = "leasehold.db"
}

listener "tcp" {
  address     = "127.0.0.1:8200"
  tls_disable = true
}
