;; A policy module that wants a resource of the host's.
(component
  (import "leasehold:policy/types@0.1.0" (instance (export "file" (type (sub resource)))))
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.1.0" (instance $empty)))
