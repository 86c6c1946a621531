;; Built for a version that this server does not speak.
(component
  (component $nothing)
  (instance $empty (instantiate $nothing))
  (export "leasehold:policy/policy@0.2.0" (instance $empty)))
